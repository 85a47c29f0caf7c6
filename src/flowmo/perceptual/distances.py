"""d_perc of Stage 1B by name (Section 3.3, Eq. 11; A.2; D2): logits of a classifier, or LPIPS."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import classifier, resnet
from .sources import WeightSource, find
from .weights import SOURCES, load_lpips

DistanceName = Literal["resnet50", "efficientnet_lite0", "lpips_vgg", "lpips_alex"]
"""resnet50 as published; efficientnet_lite0, another ImageNet classifier, where those weights are not to be had."""


class LogitDistance(nn.Module):
    """The mean squared difference of a classifier's logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """Return the distances (B,) of images from a reference, both B 3 H W in [-1, 1], which need not be clipped.

        The reference gets no gradient.
        """
        with torch.no_grad():
            target = self.network.logits(reference)
        return (self.network.logits(images) - target).square().mean(1)


class DistanceBesideLPIPS(nn.Module):
    """A distance plus ``weight`` times LPIPS (VGG), which keeps what a classifier does not look at."""

    def __init__(self, distance: nn.Module, lpips: nn.Module, weight: float) -> None:
        super().__init__()
        self.distance, self.lpips, self.weight = distance, lpips, weight

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """Return the distances (B,) of images from a reference, both B 3 H W in [-1, 1]."""
        return self.distance(images, reference) + self.weight * self.lpips(images, reference)


def load_distance(
    name: DistanceName, path: Path | None = None, side: int = resnet.SIDE, lpips_weight: float = 0.0
) -> tuple[nn.Module, dict]:
    """Return d_perc, and what checkpoints say of it: name, side, SHA-256 of its file, and the weight of LPIPS.

    It is on the CPU, frozen, float32.

    path: its weights; without it they are found as each network's loader says.
    side: of the image that a classifier sees, in pixels, whatever the size of an image; 224 as published.
    lpips_weight: of LPIPS (VGG), added to the network's distance; 0 for none.
    Raises WeightsError when there are no weights, or wrong ones.
    """
    network: nn.Module
    if name == "resnet50":
        network = LogitDistance(resnet.load_resnet50(path, side))
    elif name == "efficientnet_lite0":
        network = LogitDistance(classifier.load_classifier(path, side))
    else:
        network = load_lpips("vgg" if name == "lpips_vgg" else "alex", path)
    about: dict[str, Any] = {"name": name}
    if isinstance(network, LogitDistance):
        about |= {"side": side}
    about |= {"sha256": hashlib.sha256(find(_source(name), path).read_bytes()).hexdigest()}
    if lpips_weight:
        network = DistanceBesideLPIPS(network, load_lpips("vgg"), lpips_weight)
        about |= {"lpips_weight": lpips_weight}
    return network, about


def _source(name: DistanceName) -> WeightSource:
    if name in ("lpips_vgg", "lpips_alex"):
        return SOURCES[name.removeprefix("lpips_")]
    return resnet.SOURCE if name == "resnet50" else classifier.SOURCE
