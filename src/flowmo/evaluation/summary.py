"""Rows of pictures become the numbers of a model (Section 4.1, Table 1).

They are means, distances of distributions, the rate and the use of the codes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..codec import HEADER_SIZE
from ..errors import DataError
from ..files import replacing
from ..metrics.networks import Networks
from ..metrics.table import Measurements, compute, each_image, families, mean
from ..quantize.tokens import Tokens
from ..quantize.usage import code_usage
from .evaluate import Measured, Settings
from .measurable import MeasurableConfig


def summarize(
    table: Mapping[str, np.ndarray],
    originals: Mapping[str, np.ndarray],
    images: Sequence[Measured],
    settings: Settings,
    networks: Networks,
    config: MeasurableConfig,
) -> dict[str, Any]:
    """Return the content of a result, with conventions, metrics, rate, codes, and what was left out with its reason.

    table: columns of ``evaluate.measure``, one row a picture in order.
    originals: features of the originals, likewise.
    """
    groups = settings.protocol.groups([image.place for image in images])
    metrics, too_few = compute(networks.metrics, Measurements(table, originals, groups))
    left_out, known = {**networks.left_out, **too_few}, families()
    return {
        "protocol": settings.protocol.conventions(settings.seed),
        "metrics": metrics,
        "conventions": {name: known[name][0].about for name in networks.metrics if name not in left_out},
        "networks": {name: {"name": net.name, "sha256": net.checksum} for name, net in networks.features.items()},
        "left_out": left_out,
        "rate": _rate(table, config),
        "code": _code(table, config) if "code" in networks.metrics else None,
    }


def _rate(table: Mapping[str, np.ndarray], config: MeasurableConfig) -> dict[str, Any] | None:
    """Return the bytes of the token files that the pictures were decoded from; None for a continuous latent."""
    if "payload_bytes" not in table:
        return None
    payload, whole = mean(table["payload_bytes"]), mean(table["file_bytes"])
    pixels = config.image_size**2
    return {
        "payload_bytes": payload,
        "file_bytes": whole,
        "header_bytes": HEADER_SIZE,
        "bits_per_pixel": 8 * payload / pixels,
        "file_bits_per_pixel": 8 * whole / pixels,
    }


def write_table(path: Path, table: Mapping[str, np.ndarray], images: Sequence[Measured], names: Sequence[str]) -> None:
    """Write one line a picture as CSV, in order, with its place, name, checksum and numbers in full precision."""
    columns = [name for name in (*each_image(), "squared_error", "file_bytes", "payload_bytes") if name in table]
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["place", "name", "sha256", *columns])
        for i, (image, name) in enumerate(zip(images, names, strict=True)):
            numbers = [table[column][i].item() for column in columns]
            writer.writerow([image.place, name, image.checksum, *numbers])


def read_table(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read what :func:`write_table` wrote.

    Checksums in order come back, and the columns of numbers (N,) for ``paired_bootstrap``.
    Raises DataError for a file that is no such table.
    """
    try:
        with path.open(newline="") as file:
            header, *lines = csv.reader(file)
        if header[:3] != ["place", "name", "sha256"] or not lines:
            raise ValueError("it has no such columns, or no lines")
        columns = {name: np.array([float(line[i]) for line in lines]) for i, name in enumerate(header) if i > 2}
        return [line[2] for line in lines], columns
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a table of pictures ({error})") from None


def _code(table: Mapping[str, np.ndarray], config: MeasurableConfig) -> dict[str, Any] | None:
    """Return the use of the codes over all tokens (``quantize.usage``); None for a continuous latent.

    There is the entropy of a bit, and of each group of bits entropy, perplexity and the share of its codes that occur.
    """
    if "tokens" not in table:
        return None
    indices = torch.from_numpy(table["tokens"]).unflatten(1, (config.num_tokens, -1))
    usage = code_usage(Tokens(indices, config.bits_per_group, (config.image_size, config.image_size)))
    return {
        "bit_entropy": usage.bits.entropy,
        "bits_never_flip": usage.bits.never_flip,
        "groups": [
            {"entropy": entropy, "perplexity": perplexity, "used": used}
            for entropy, perplexity, used in zip(usage.entropy, usage.perplexity, usage.used, strict=True)
        ],
    }
