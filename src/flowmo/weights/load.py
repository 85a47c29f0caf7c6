"""``flowmo.load``: the packaged model, a file, a folder, or a released checkpoint."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch

from ..errors import WeightsError
from ..files import user_path
from ..presets import PRESETS
from ..tokenizer import FlowMo
from .native import load_model
from .official import load_official
from .shards import INDEX

PACKAGED = "flowmo-mini-64"


def load(
    name: str | Path = PACKAGED,
    *,
    ema: bool = True,
    num_tokens: int = 256,
    image_size: int = 256,
    bits_per_group: int | None = None,
    device: str | torch.device = "cpu",
) -> FlowMo:
    """A model ready to use, in evaluation mode.

    name: the packaged model (default); a ``.safetensors`` file; a folder with ``model.safetensors``, or with shards and
    ``model.safetensors.index.json``; or a released ``.pth`` file. The other arguments say what a released file's shapes
    do not; bits_per_group is 9 for 18-bit and 14 for 56-bit tokens unless given. ``ema=False`` takes its raw weights.
    Nothing in a file is ever executed.

    Raises WeightsError when there are no such weights, or they are damaged.
    """
    path = weights_path(name)
    if path.suffix in (".pth", ".pt"):
        return load_official(path, ema, num_tokens, image_size, bits_per_group).to(device)
    return load_model(path).to(device)


def weights_path(name: str | Path) -> Path:
    """The file that :func:`load` reads for ``name``; whether it exists is known only of packaged models.

    Raises WeightsError for a name that is neither a path nor a packaged model.
    """
    if name == PACKAGED:  # before any file or folder of that name
        return packaged_path(PACKAGED)
    path = user_path(name)
    if path.is_dir():
        whole, index = path / "model.safetensors", path / INDEX
        path = index if index.is_file() and not whole.exists() else whole
    if path.suffix in (".pth", ".pt", ".safetensors") or path.exists():
        return path
    return packaged_path(str(name))


def packaged_path(name: str) -> Path:
    """Where the packaged weights of that name lie; WeightsError, with the way to get some, when there are none."""
    path = Path(str(resources.files("flowmo"))) / "weights" / "packaged" / f"{name}.safetensors"
    if path.is_file():
        return path
    if name in PRESETS:
        raise WeightsError(
            f"{name!r} is a configuration without packaged weights. Download a released checkpoint (flowmo_lo.pth or "
            "flowmo_hi.pth, from the paper's project page) and give its path, train one with 'flowmo train', or use "
            f"the packaged {PACKAGED!r}"
        )
    raise WeightsError(f"no model {name!r}: neither a file, a folder, nor a packaged model ({PACKAGED!r})")
