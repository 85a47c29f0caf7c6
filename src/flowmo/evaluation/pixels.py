"""Pixel metrics, and the thumbnail that any code must beat."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import to_uint8


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (B,). Both B 3 H W in [-1, 1], compared as rounded to 8 bits."""
    error = (to_uint8(images).float() - to_uint8(reference).float()).square().flatten(1).mean(1)
    return 10 * torch.log10(255.0**2 / error.clamp_min(1e-10))


def thumbnail(images: Tensor, bits: int) -> Tensor:
    """Each image through an RGB thumbnail of at most ``bits`` bits, 18 a pixel (6 a colour), enlarged bicubically."""
    side = max(1, math.isqrt(bits // 18))
    small = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
    small = ((small.clamp(-1, 1) + 1) / 2 * 63).round() / 63 * 2 - 1
    return F.interpolate(small, images.shape[-2:], mode="bicubic", align_corners=False).clamp(-1, 1)
