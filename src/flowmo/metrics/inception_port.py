"""The Inception network of FID is read from the file of pytorch-fid and torch-fidelity, with its classifier (E5)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import WeightsError
from ..files import cache_folder
from ..perceptual.sources import WeightSource, torch_cache

SOURCE = WeightSource(
    title="the Inception network of FID, with its classifier (pytorch-fid)",
    file="pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d",  # the first digits, which are in its name
    size=95628359,
    address="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
NAMES = (SOURCE.file, "weights-inception-2015-12-05-6726825d.pth")

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_AT_35 = ("branch1x1", "branch5x5_1", "branch5x5_2", *(f"branch3x3dbl_{i}" for i in (1, 2, 3)), "branch_pool")
_AT_17 = (
    "branch1x1",
    *(f"branch7x7_{i}" for i in (1, 2, 3)),
    *(f"branch7x7dbl_{i}" for i in range(1, 6)),
    "branch_pool",
)
_AT_8 = (
    *("branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b"),
    *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"),
)
_BLOCKS = {
    **{f"Mixed_5{letter}": _AT_35 for letter in "bcd"},
    "Mixed_6a": ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    **{f"Mixed_6{letter}": _AT_17 for letter in "bcde"},
    "Mixed_7a": ("branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4))),
    **{f"Mixed_7{letter}": _AT_8 for letter in "bc"},
}
CONVOLUTIONS = (*_STEM, *(f"{block}.{branch}" for block, branches in _BLOCKS.items() for branch in branches))
"""The names of that file's 94 convolutions, in the order of ours."""


def find_port() -> Path | None:
    """Return the file in our cache or in torch's, under its usual names; None where it is in neither."""
    places = (folder / name for folder in (cache_folder(), torch_cache()) for name in NAMES)
    return next((path for path in places if path.is_file()), None)


def read_port(path: Path, ours: Iterable[str], verify: bool = True) -> tuple[dict[str, Tensor], Tensor, str]:
    """Return the tensors under our names, the classifier (classes, 2048) without its bias, and the file's SHA-256.

    A scale of the normalisation is put into the weights.
    ours: names of our convolutions in order.
    verify: compare the checksum that the published file has in its name.
    Raises WeightsError for a damaged file or another one.
    """
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if verify and not found.startswith(SOURCE.sha256):
            raise WeightsError(
                f"{path} is damaged or another file: its SHA-256 begins with {found[:8]}, not {SOURCE.sha256}"
            )
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        tensors: dict[str, Tensor] = {}
        for mine, theirs in zip(ours, CONVOLUTIONS, strict=True):
            scale = state.get(f"{theirs}.bn.weight", torch.ones(()))
            tensors[f"{mine}.weight"] = state[f"{theirs}.conv.weight"].float() * scale.reshape(-1, 1, 1, 1)
            tensors[f"{mine}.beta"] = state[f"{theirs}.bn.bias"].float()
            tensors[f"{mine}.mean"] = state[f"{theirs}.bn.running_mean"].float() * scale
            tensors[f"{mine}.var"] = state[f"{theirs}.bn.running_var"].float()
        return tensors, state["fc.weight"].float(), found
    except WeightsError:
        raise
    except KeyError as missing:
        raise WeightsError(f"{path} is not the Inception network of FID: it has no {missing}") from None
    except Exception as error:  # a broken file can raise anything
        raise WeightsError(f"{path} is not a file of weights that can be read safely: {str(error)[:120]}") from None
