"""What the packaged model loses at sizes that it was not trained at, where it is a model of one size."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from ..config import FlowMoConfig

FILE = Path(__file__).parent / "packaged" / "sizes.json"


@cache
def size_table() -> dict[str, Any] | None:
    """Return the table of quality by size; None where no packaged model has one.

    It has the model and its fingerprint, the data, and PSNR in dB and LPIPS of each side in pixels.
    """
    return json.loads(FILE.read_text()) if FILE.exists() else None


def loss_at(ratio: float) -> str:
    """Return in words, to go on after a sentence, how quality fell in the table at a size.

    It is empty where there is no table. ratio: the size, by the side that the model was trained at. Of the measured
    sizes the nearest is told.
    """
    table = size_table()
    if table is None:
        return ""
    own = table["image_size"]
    trained = next(row for row in table["rows"] if row["side"] == own)
    others = [row for row in table["rows"] if row["side"] != own]
    nearest = min(others, key=lambda row: abs(math.log(row["side"] / own) - math.log(ratio)))
    return (
        f"; in our table {table['model']} falls from {trained['psnr']:.1f} dB PSNR at {own}x{own} to "
        f"{nearest['psnr']:.1f} dB at {nearest['side']}x{nearest['side']}"
    )


def size_warning(size: tuple[int, int], config: FlowMoConfig) -> str | None:
    """Return a warning of what is lost at a (height, width) that a model without a transform was not trained at.

    None for another model or its own size.
    """
    own = config.image_size
    if config.transform is not None or size == (own, own):
        return None
    return (
        f"warning: --size {size[0]}x{size[1]}: the model was trained at {own}x{own} pixels, and its "
        "images are worse the further a size is from that"
        f"{loss_at(math.sqrt(size[0] * size[1]) / own)}. Leave out --size, or use a model with a transform"
    )
