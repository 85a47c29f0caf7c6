"""Figures measure reconstructions by LPIPS and by distances of distributions, under short names (Section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import to_uint8
from ..errors import ConfigError
from ..evaluation.evaluator import FEWEST, Evaluator
from ..evaluation.results import image_checksums, list_checksum
from ..metrics.features import load_classifier_features, load_inception
from ..metrics.networks import Networks
from ..metrics.table import column
from ..perceptual import load_lpips
from ..provenance import weights_checksum
from ..tokenizer import FlowMo
from .sampling import Measure


def load_measure(
    name: str, originals: Tensor, device: torch.device, weights: Path | None = None, batch_size: int = 16
) -> Measure:
    """Return a function that measures reconstructions of the originals, N 3 H W in [-1, 1].

    name: "lpips", "rfid" with KID beside it, or "fd_efflite0" with KD.
    weights: a file, where none are installed.
    Raises WeightsError where they are missing, ConfigError for fewer images than a distance of distributions needs.
    """
    if name != "lpips" and len(originals) < FEWEST:
        raise ConfigError(f"{column(name).label} needs at least {FEWEST} pictures, got {len(originals)}; give more")
    if name == "lpips":
        networks = Networks(("lpips_alex",), {"alex": load_lpips("alex", weights).to(device)})
    elif name == "rfid":
        networks = Networks(("rfid", "kid"), {}, {"inception": load_inception(weights).to(device)})
    else:
        classifier = load_classifier_features(weights).to(device)
        networks = Networks(("fd_efflite0", "kd_efflite0"), {}, {"efflite0": classifier})
    evaluator = Evaluator(to_uint8(originals), networks, batch_size, device)
    short = {"lpips_alex": "lpips"}

    def measure(reconstructions: Tensor) -> dict[str, float]:
        numbers = evaluator.numbers(reconstructions)
        return {short.get(name, name): numbers[name] for name in networks.metrics if name in numbers}

    return measure


def identity(images: Tensor, seed: int, model: FlowMo, names: Sequence[str]) -> dict[str, Any]:
    """Return the weights, pictures, seed and networks that measured numbers belong to, as JSON data."""
    return {
        "weights": weights_checksum(model),
        "pictures": list_checksum(image_checksums(images)),
        "seed": seed,
        "measures": list(names),
    }
