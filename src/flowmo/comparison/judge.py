"""What is measured of reconstructions in a comparison: each picture, and the distribution of all (Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data import to_float, to_uint8
from ..evaluation.results import picture_checksums
from ..evaluation.rows import Rows
from ..metrics.distances import frechet_of_features, kid
from ..metrics.features import FeatureNetwork
from ..metrics.pixels import psnr, ssim, thumbnail

Distances = Mapping[str, Callable[[Tensor, Tensor], Tensor]]

SPACES = {"inception": ("rfid", "kid"), "efflite0": ("fd_efflite0", "kd_efflite0")}
"""Fréchet and kernel distance in each network's space "pool"; only the first is FID."""

FEWEST = 4  # pictures that a kernel distance needs


class Judge:
    """Measures reconstructions of the same pictures, again and again.

    images: uint8 N 3 H W. distances: "alex", "vgg" to LPIPS. networks: of SPACES' names. device: of distances and
    networks. features: where a network's are kept under the checksums of pictures, so that none is looked at twice.
    """

    def __init__(
        self,
        images: Tensor,
        distances: Distances,
        networks: Mapping[str, FeatureNetwork],
        batch_size: int = 16,
        device: torch.device | str = "cpu",
        features: Mapping[str, Rows] | None = None,
    ) -> None:
        self.images, self.distances, self.networks = images, distances, networks
        self.batch_size, self.device = batch_size, torch.device(device)
        self._kept = features or {}
        self._reference: dict[str, np.ndarray] = {}
        self._small: dict[int, list[float]] = {}

    def batches(self) -> Iterable[tuple[Tensor, range]]:
        """(images B 3 H W in [-1, 1] on the CPU, their places in ``images``)."""
        for start in self._starts():
            chosen = self.images[start : start + self.batch_size]
            yield to_float(chosen), range(start, start + len(chosen))

    @torch.no_grad()
    def measure(
        self,
        paint: Callable[[Tensor, Sequence[int]], Tensor],
        distributions: bool = True,
        size: Callable[[], float | None] = lambda: None,
    ) -> dict[str, float]:
        """paint: (images B 3 H W in [-1, 1], their places) -> their reconstructions. distributions: without them only
        what is of each picture is measured. size: bytes of the thumbnail to be compared with, asked for at the end."""
        values: dict[str, list[float]] = {}
        features: dict[str, list[np.ndarray]] = {name: [] for name in self.networks if distributions}
        for images, places in self.batches():
            pixels = to_uint8(paint(images, places))
            again, images = to_float(pixels.to(self.device)), images.to(self.device)
            found = {"psnr": psnr(again, images), "ssim": ssim(again, images)}
            found |= {f"lpips_{name}": lpips(again, images) for name, lpips in self.distances.items()}
            for name, numbers in found.items():
                values.setdefault(name, []).extend(numbers.tolist())
            for name, parts in features.items():
                parts.append(self._features(name, pixels))
        metrics = {name: sum(numbers) / len(numbers) for name, numbers in values.items()}
        spent = size()
        if spent and "alex" in self.distances:
            pairs = zip(values["lpips_alex"], self._thumbnails(int(spent)), strict=True)
            metrics["beats_thumbnail"] = sum(ours < theirs for ours, theirs in pairs) / len(self.images)
        for name, parts in features.items():
            if len(self.images) >= FEWEST:
                metrics |= self._distribution(name, np.concatenate(parts))
        return metrics

    def _thumbnails(self, size: int) -> list[float]:
        """LPIPS (Alex) of the thumbnail of so many bytes to each picture."""
        if size not in self._small:
            self._small[size] = []
            for images, _ in self.batches():
                again = to_float(to_uint8(thumbnail(images, 8 * size))).to(self.device)
                self._small[size] += self.distances["alex"](again, images.to(self.device)).tolist()
        return self._small[size]

    def _distribution(self, name: str, found: np.ndarray) -> dict[str, float]:
        if name not in self._reference:
            parts = [self._features(name, self.images[i : i + self.batch_size]) for i in self._starts()]
            self._reference[name] = np.concatenate(parts)
        reference, (frechet_name, kernel_name) = self._reference[name], SPACES[name]
        kernel, error = kid(reference, found)
        return {
            frechet_name: frechet_of_features(reference, found),
            kernel_name: kernel,
            f"{kernel_name}_error": error,
        }

    def _features(self, name: str, pixels: Tensor) -> np.ndarray:
        """pixels: uint8 B 3 H W -> (B, D), looked up where they are kept."""
        kept, keys = self._kept.get(name), picture_checksums(pixels)
        if kept is None or any(key not in kept for key in keys):
            found = self.networks[name](to_float(pixels.to(self.device)))["pool"].cpu().numpy()
            if kept is None:
                return found
            kept.add(keys, {"features": found})
        return kept.get(keys)["features"]

    def _starts(self) -> range:
        return range(0, len(self.images), self.batch_size)
