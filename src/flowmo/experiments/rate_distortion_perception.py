"""Rate, distortion, perception: quality by the norm of x_1, the starting noise (Appendix C, Figure 9; F3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..config import SamplerConfig
from ..data import to_uint8
from ..evaluation.protocols import STANDARD
from ..metrics.pixels import psnr
from ..tokenizer import FlowMo
from .sampling import Measure, codes_of, sample_codes


@dataclass(frozen=True)
class NormPoint:
    """noise_scale: factor of x_1. psnr: dB, mean over pictures. mse: mean over pictures, in squares of 8-bit levels.
    perception: distances of distributions by name, lower is closer."""

    noise_scale: float
    psnr: float
    mse: float
    perception: dict[str, float]


def norm_sweep(
    model: FlowMo,
    images: Tensor,
    noise_scales: Sequence[float],
    seeds: Sequence[int],
    perception: Measure,
    sampler: SamplerConfig | None = None,
    batch_size: int = 16,
) -> Iterator[NormPoint]:
    """Sample images B 3 H W in [-1, 1] once for each scale, always from the same seeds, one an image.

    A smaller norm makes x_1 likelier: samples move to the mean of p(x | c), so that their distortion falls. In the
    paper their distribution then moves away from that of the pictures; a small model whose noise becomes grain gains
    in both. All numbers are of 8-bit pictures.
    """
    size = (images.shape[2], images.shape[3])
    codes = codes_of(model, images, batch_size)
    for scale in noise_scales:
        samples = STANDARD.for_networks(sample_codes(model, codes, size, seeds, sampler, scale, batch_size))
        error = (to_uint8(samples).float() - to_uint8(images).float()).square().mean()
        yield NormPoint(scale, float(psnr(samples, images).mean()), float(error), perception(samples))


def point_to_dict(point: NormPoint) -> dict[str, float]:
    """Return a point as JSON data."""
    return {"noise_scale": point.noise_scale, "psnr": point.psnr, "mse": point.mse} | point.perception
