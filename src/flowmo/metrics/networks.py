"""The networks that metrics need are loaded here, and metrics without them are left out (Section 4.1, Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ImageError, WeightsError
from ..perceptual import LPIPS, load_lpips
from .features import FeatureNetwork, load_classifier_features, load_inception
from .inception import Input
from .table import METRICS, spaces


@dataclass(frozen=True)
class WeightFiles:
    """Files of weights, for where none are installed; None for the installed ones."""

    lpips_alex: Path | None = None  # LPIPS by AlexNet
    lpips_vgg: Path | None = None  # LPIPS by VGG
    inception: Path | None = None  # the network of FID
    inception_classifier: Path | None = None  # the last layer of Inception, a user's own
    classifier: Path | None = None  # EfficientNet-lite0


@dataclass(frozen=True)
class Networks:
    """The networks at hand, and the metrics that can be measured with them."""

    # Those that can be measured, in order.
    metrics: tuple[str, ...]
    # Distances by the name of their network, "alex" or "vgg".
    lpips: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)
    # Networks by metric family, "inception" or "efflite0".
    features: Mapping[str, FeatureNetwork] = field(default_factory=dict)
    # The other metrics that were asked for, each with the reason and the way out.
    left_out: Mapping[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return a line for each reason why metrics are left out, with the names of all that it keeps out."""
        names: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            names.setdefault(reason, []).append(name)
        are = {reason: "are" if len(each) > 1 else "is" for reason, each in names.items()}
        return [f"note: {', '.join(each)} {are[reason]} left out: {reason}" for reason, each in names.items()]


def load_networks(
    metrics: Sequence[str],
    inception: Input,
    side: int,
    device: torch.device,
    files: WeightFiles = WeightFiles(),  # frozen
) -> Networks:
    """Load what the metrics need for pictures of ``side`` pixels to the device, and return it.

    Missing weights leave metrics out.
    Raises WeightsError for a file that was given and cannot be used.
    """
    lpips: dict[str, LPIPS] = {}
    features: dict[str, FeatureNetwork] = {}
    left_out: dict[str, str] = {}

    for name in ("alex", "vgg"):
        if f"lpips_{name}" in metrics:
            file = getattr(files, f"lpips_{name}")
            try:
                distance = load_lpips(name, file).to(device)  # type: ignore[arg-type]
                distance(*(torch.zeros(1, 3, side, side, device=device),) * 2)
                lpips[name] = distance
            except (WeightsError, ImageError) as error:
                _missing(error, file, left_out, [f"lpips_{name}"])
    asked = _asking(metrics, "inception")
    if asked:
        try:
            network = load_inception(files.inception, files.inception_classifier, inception).to(device)
            features["inception"] = network
            for name in asked:
                if not {needs.partition(".")[2] for needs in spaces([name])} <= set(network.spaces):
                    left_out[name] = (
                        "needs the last layer of Inception, which is not published with the rest; give its file "
                        "(--inception-classifier)"
                    )
        except WeightsError as error:
            _missing(error, files.inception or files.inception_classifier, left_out, asked)
    if classified := _asking(metrics, "efflite0"):
        try:
            features["efflite0"] = load_classifier_features(files.classifier).to(device)
        except WeightsError as error:
            _missing(error, files.classifier, left_out, classified)
    for metric in METRICS:
        if metric.name in metrics and side < metric.side:
            left_out[metric.name] = f"needs pictures of at least {metric.side} pixels a side"
    if all(name in left_out for name in asked):
        features.pop("inception", None)
    return Networks(tuple(name for name in metrics if name not in left_out), lpips, features, left_out)


def _asking(metrics: Sequence[str], network: str) -> list[str]:
    """Return those that need features of the network."""
    return [name for name in metrics if any(needs.startswith(f"{network}.") for needs in spaces([name]))]


@torch.no_grad()
def features_of(networks: Networks, images: Tensor) -> dict[str, Tensor]:
    """Return the features that the metrics ask for, by "network.space", of images B 3 H W in [-1, 1].

    They are float32 (B, D) on the CPU.
    """
    found = {name: network(images) for name, network in networks.features.items()}
    wanted = (needs.split(".") for needs in spaces(networks.metrics))
    return {f"{name}.{space}": found[name][space].cpu() for name, space in wanted}


def _missing(error: Exception, file: Path | None, left_out: dict[str, str], names: list[str]) -> None:
    if file is not None:
        raise error
    left_out.update({name: str(error) for name in names})
