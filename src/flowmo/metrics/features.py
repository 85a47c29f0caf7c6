"""Images become features, the first of the three pure steps behind rFID, KID, sFID, FD, precision, recall (Table 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..perceptual.classifier import SOURCE, Classifier, load_classifier
from .inception import Inception, Input
from .inception import load as _load_inception


class FeatureNetwork(Protocol):
    """A frozen network that measures images."""

    @property
    def name(self) -> str:
        """Return what results call it."""
        ...

    @property
    def spaces(self) -> tuple[str, ...]:
        """Return the names of the features that a call returns."""
        ...

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of its weights."""
        ...

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return each space's features, float32 (B, D), of float images B 3 H W in [-1, 1].

        A row depends on its own image only.
        """
        ...


def load_inception(
    path: Path | None = None, classifier: Path | None = None, prepare: Input = "tensorflow"
) -> Inception:
    """Return the genuine network of FID.

    Its spaces are ``pool`` (2048; rFID, KID, precision, recall) and ``spatial`` (2023; sFID).
    classifier: a file of the last layer, which has to be the user's own; with it there is ``logits`` (Inception Score).
    prepare: ``tensorflow``, or ``pytorch_fid`` for the published protocol (E5); see :class:`Inception`.
    Raises WeightsError when the weights are missing (and says how to get them) or damaged.
    """
    return _load_inception(path, classifier, prepare)


def load_classifier_features(path: Path | None = None) -> ClassifierFeatures:
    """Return EfficientNet-lite0, whose one space is ``pool`` (1280).

    A Fréchet distance there is FD-EffLite0 and never FID.
    Raises WeightsError when the weights are missing (and says how to get them) or damaged.
    """
    return ClassifierFeatures(load_classifier(path))


class ClassifierFeatures(nn.Module):
    """The packaged classifier as a network that measures images."""

    name = "efficientnet-lite0"
    spaces = ("pool",)
    checksum = SOURCE.sha256

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``pool``, float32 (B, 1280), of images B 3 H W in [-1, 1]."""
        return {"pool": self.network.features(images)}


@dataclass(frozen=True)
class Faster:
    """A network that measures images in half precision, or compiled for batches of one size."""

    network: FeatureNetwork  # as it is
    call: Callable[[Tensor], Any]  # what runs in its place, see :func:`faster`
    precision: str = "fp32"  # of the products; features are float32 all the same

    @property
    def name(self) -> str:
        return self.network.name + ("" if self.precision == "fp32" else f"-{self.precision}")

    @property
    def spaces(self) -> tuple[str, ...]:
        return self.network.spaces

    @property
    def checksum(self) -> str:
        return self.network.checksum

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.call(images)
        return found


def faster(
    function: Callable[[Tensor], Any], device: torch.device, precision: str = "fp32", batch: int | None = None
) -> Callable[[Tensor], Any]:
    """Return ``function`` of images B 3 H W with products in ``precision``, and its results as float32.

    batch: compiled for batches of that size, which is the largest; of a smaller one the last image stands for those
    that lack, so that there is one shape. None runs it as it is.
    """
    run = torch.compile(function, dynamic=False) if batch else function

    def faster_function(images: Tensor) -> Any:
        count = len(images)
        if batch and count < batch:
            images = torch.cat([images, images[-1:].expand(batch - count, -1, -1, -1)])
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            found = run(images)
        return tree_map(lambda values: values[:count].float(), found)

    return faster_function
