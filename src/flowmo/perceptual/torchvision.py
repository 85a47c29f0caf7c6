"""LPIPS from the files that most people have: torchvision's network in torch's cache, and the package lpips' layers.

Nothing of either package is imported. torchvision writes the first eight digits of a file's SHA-256 into its name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..files import cache_folder
from .lpips import Network, build_stages
from .sources import WeightSource, torch_cache

_ADDRESS = "https://download.pytorch.org/models/"
NETWORKS = {
    "vgg": WeightSource(
        "VGG16 (torchvision's IMAGENET1K_V1)", "vgg16-397923af.pth", "397923af", 553433881,
        address=_ADDRESS + "vgg16-397923af.pth",
    ),
    "alex": WeightSource(
        "AlexNet (torchvision's IMAGENET1K_V1)", "alexnet-owt-7be5be79.pth", "7be5be79", 244408911,
        address=_ADDRESS + "alexnet-owt-7be5be79.pth",
    ),
}  # fmt: skip
LAYERS = {
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
}
"""SHA-256 of lpips' ``weights/v0.1/vgg.pth`` and ``alex.pth``."""


def read_lpips(network: Network) -> dict[str, Tensor] | None:
    """Return the tensors of LPIPS, or None where one of its two files is nowhere.

    Raises WeightsError for a damaged one.
    """
    source = NETWORKS[network]
    places = [folder / source.file for folder in (cache_folder(), torch_cache())]
    backbone = next((path for path in places if path.is_file()), None)
    layers = _layers_file(network)
    if backbone is None or layers is None:
        return None
    state, lins = _read(backbone, source.sha256), _read(layers, LAYERS[network])
    with torch.device("meta"):
        convs = [name for name, module in build_stages(network).named_modules() if isinstance(module, nn.Conv2d)]
    theirs = sorted({int(key.split(".")[1]) for key in state if key.startswith("features.")})
    if len(theirs) != len(convs) or any(f"lin{i}.model.1.weight" not in lins for i in range(5)):
        raise WeightsError(f"{backbone} and {layers} are not the two halves of LPIPS {network!r}; remove the wrong one")
    tensors = {f"lins.{i}": lins[f"lin{i}.model.1.weight"].flatten() for i in range(5)}
    for ours, number in zip(convs, theirs, strict=True):
        for part in ("weight", "bias"):
            tensors[f"stages.{ours}.{part}"] = state[f"features.{number}.{part}"]
    return tensors


def _layers_file(network: Network) -> Path | None:
    """Return the file of lpips' own layers, None where there is none.

    It comes from the installed package, which is not imported, or from the cache as ``lpips-vgg.pth``.
    """
    candidates = [cache_folder() / f"lpips-{network}.pth"]
    try:
        packaged = importlib.metadata.distribution("lpips").locate_file(f"lpips/weights/v0.1/{network}.pth")
        candidates.insert(0, Path(str(packaged)))
    except importlib.metadata.PackageNotFoundError:
        pass
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if not found.startswith(sha256):
            raise WeightsError(
                f"{path} is damaged or another file: its SHA-256 begins with {found[:8]}, not {sha256[:8]}"
            )
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # a broken file can raise anything
        raise WeightsError(f"{path} is not a file of weights that can be read: {str(error)[:120]}") from None
