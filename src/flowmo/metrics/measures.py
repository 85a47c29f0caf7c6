"""Reconstructions in, numbers out: metrics bound to their originals, for sweeps (Section 4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .distances import frechet_of_features, kid
from .features import FeatureNetwork

Measure = Callable[[Tensor], dict[str, float]]
"""Reconstructions B 3 H W in [-1, 1], in the order of the originals -> numbers by name, lower is better."""


def lpips_measure(
    network: Callable[[Tensor, Tensor], Tensor], originals: Tensor, batch_size: int = 16, name: str = "lpips"
) -> Measure:
    """The mean distance of pairs, under ``name``. network: (images, reference) -> (B,); it works where ``originals``
    are."""

    @torch.no_grad()
    def measure(images: Tensor) -> dict[str, float]:
        pairs = zip(images.split(batch_size), originals.split(batch_size), strict=True)
        values = torch.cat([network(a.to(b.device), b).cpu() for a, b in pairs])
        return {name: float(values.mean())}

    return measure


def distribution_measure(
    network: FeatureNetwork, originals: Tensor, names: tuple[str, str], batch_size: int = 16
) -> Measure:
    """Fréchet and kernel distance, under these two names, of the network's space "pool" to the originals' (E5).

    Both depend on the number of pictures, the first far more: below 10,000 look at the second too.
    """
    device = originals.device
    reference = features_of(network, originals, batch_size)

    def measure(images: Tensor) -> dict[str, float]:
        found = features_of(network, images.to(device), batch_size)
        return {names[0]: frechet_of_features(reference, found), names[1]: kid(reference, found)[0]}

    return measure


@torch.no_grad()
def features_of(network: FeatureNetwork, images: Tensor, batch_size: int = 16, space: str = "pool") -> np.ndarray:
    """images B 3 H W in [-1, 1] -> float32 B D."""
    return torch.cat([network(x)[space].cpu() for x in images.split(batch_size)]).numpy()
