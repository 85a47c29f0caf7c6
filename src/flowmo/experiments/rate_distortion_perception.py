"""The norm of x_1, the starting noise, trades distortion against perception at one rate (Appendix C, Figure 9; F3)."""

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
    """The quality of samples at one norm of the starting noise."""

    noise_scale: float  # the factor of x_1
    psnr: float  # dB, mean over pictures
    mse: float  # mean over pictures, in squares of 8-bit levels
    perception: dict[str, float]  # distances of distributions by name, lower is closer


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
