"""Reconstructions become numbers the same way in evaluations, comparisons and figures (Section 4.1, Table 1).

Columns of numbers and features, a row an image, are taken batch by batch; the metrics follow from all of them
(metrics/table.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data import to_float
from ..metrics.networks import Networks, features_of
from ..metrics.table import METRICS, Measurements, allowed, compute, spaces
from .feature_cache import FeatureCache
from .protocols import STANDARD, Protocol
from .results import image_checksums

Reconstruct = Callable[[Tensor, Sequence[int]], Tensor]
"""A function of images B 3 H W in [-1, 1] and their places that returns their reconstructions, alike."""

FEWEST = 4
"""How many images a kernel distance needs; of fewer no distances of distributions are taken."""


@torch.no_grad()
def measure_pairs(
    reconstructions: Tensor, images: Tensor, networks: Networks, protocol: Protocol
) -> dict[str, np.ndarray]:
    """Return the numbers of each pair, by column, (B,) each. Both are B 3 H W in [-1, 1], on the networks' device."""
    ours, theirs = protocol.to_uint8(reconstructions), protocol.to_uint8(images)
    columns = {"squared_error": (ours.cpu().double() - theirs.cpu().double()).square().flatten(1).mean(1)}
    for metric in METRICS:
        if metric.pair is not None and metric.name in ("psnr", *networks.metrics):
            columns[metric.needs] = metric.pair(ours, theirs)
    seen, original = protocol.for_networks(reconstructions), protocol.for_networks(images)
    columns |= {f"lpips_{name}": lpips(seen, original) for name, lpips in networks.lpips.items()}
    return {name: values.cpu().numpy() for name, values in columns.items()}


def features_by_name(
    images: Tensor, networks: Networks, cache: Mapping[str, FeatureCache] | None = None
) -> dict[str, np.ndarray]:
    """Return features (B, D) by "network.space" of images B 3 H W in [-1, 1], of 8 bits where there is a cache."""
    if not cache:
        return {name: values.numpy() for name, values in features_of(networks, images).items()}
    wanted, keys = spaces(networks.metrics), image_checksums(images)
    if any(key not in cache[name] for name in wanted for key in keys):
        for name, values in features_of(networks, images).items():
            cache[name].add(keys, {"features": values.numpy()})
    return {name: cache[name].get(keys)["features"] for name in wanted}


class Evaluator:
    """Measures reconstructions of the same images, again and again, by the standard protocol.

    images: uint8 N 3 H W.
    networks: on ``device``.
    cache: features by "network.space" under the checksums of images, so that no network sees an image twice.
    of: how many images there are, where these are one process's share.
    """

    def __init__(
        self,
        images: Tensor,
        networks: Networks,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
        cache: Mapping[str, FeatureCache] | None = None,
        of: int | None = None,
    ) -> None:
        self.images, self.networks = images, networks
        self.batch_size, self.device = batch_size, torch.device(device)
        self._cache, self._of = cache or {}, len(images) if of is None else of
        self._originals: dict[str, np.ndarray] = {}

    def batches(self) -> Iterable[tuple[Tensor, range]]:
        """Yield (images B 3 H W in [-1, 1] on the CPU, their places)."""
        for start in range(0, len(self.images), self.batch_size):
            chosen = self.images[start : start + self.batch_size]
            yield to_float(chosen), range(start, start + len(chosen))

    def measure(self, reconstruct: Reconstruct, distributions: bool = True) -> Measurements:
        """Return the columns of all images, without features where ``distributions`` is False."""
        distributions = distributions and self._of >= FEWEST
        parts: dict[str, list[np.ndarray]] = {}
        for images, places in self.batches():
            reconstructed = STANDARD.for_networks(reconstruct(images, places)).to(self.device)
            columns = measure_pairs(reconstructed, images.to(self.device), self.networks, STANDARD)
            if distributions:
                columns |= features_by_name(STANDARD.for_networks(reconstructed), self.networks, self._cache)
            for name, values in columns.items():
                parts.setdefault(name, []).append(values)
        if distributions and not self._originals:
            originals = [
                features_by_name(images.to(self.device), self.networks, self._cache) for images, _ in self.batches()
            ]
            self._originals = {name: np.concatenate([part[name] for part in originals]) for name in originals[0]}
        columns = {name: np.concatenate(values) for name, values in parts.items()}
        return Measurements(columns, self._originals if distributions else {})

    def metrics(self, measured: Measurements) -> dict[str, float]:
        """Return the numbers of those of the networks' metrics that these columns allow."""
        possible = allowed(measured)
        return compute([name for name in self.networks.metrics if name in possible], measured)[0]

    def numbers(self, reconstructions: Tensor) -> dict[str, float]:
        """Return the metrics of reconstructions N 3 H W in [-1, 1] of all images, in their order."""
        return self.metrics(self.measure(lambda images, places: reconstructions[list(places)]))
