"""PSNR and SSIM measure each image by itself (Table 1, FACTS E2, E3, E6); a thumbnail is what any code must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError
from ..image_utils.scale import to_uint8

_WINDOW = 7
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of each image, (B,).

    Both are B 3 H W in [-1, 1] and are compared as rounded to 8 bits.
    """
    return psnr_uint8(to_uint8(images), to_uint8(reference))


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Return the structural similarity of each image, (B,), at most 1.

    Both are B 3 H W in [-1, 1] and are compared as rounded to 8 bits.
    See :func:`ssim_uint8`.
    """
    return ssim_uint8(to_uint8(images), to_uint8(reference))


def psnr_uint8(images: Tensor, reference: Tensor) -> Tensor:
    """Return the PSNR in dB of each image, (B,) float32, over all its pixels and colours.

    Both are uint8 (B, 3, H, W).
    Equal images give 148 dB, a mean square error of 1e-10. Raises ImageError for other shapes or types.
    """
    _check(images, reference)
    squares = (images.int() - reference.int()).square().flatten(1).sum(1)  # whole numbers: exact in any order
    error = squares.float() / images[0].numel()
    return 10 * torch.log10(255.0**2 / error.clamp_min(1e-10))


def ssim_uint8(images: Tensor, reference: Tensor) -> Tensor:
    """Return the SSIM of each image, (B,) float32, the mean over colours and the windows that lie within the image.

    Both are uint8 (B, 3, H, W).
    The convention is scikit-image's default, which the released evaluation uses (E3): windows of 7 x 7 equal weights,
    variances of a sample (48, not 49), K1 = 0.01, K2 = 0.03. Figures elsewhere may be of a Gaussian window of 11 x 11,
    or of a data range of 2 for images in [-1, 1], and are then other numbers.
    Raises ImageError for other shapes or types, or for a side below 7 pixels.
    """
    _check(images, reference)
    if min(images.shape[2:]) < _WINDOW:
        raise ImageError(f"SSIM needs images of at least {_WINDOW} x {_WINDOW} pixels, got {_size(images)}")
    count = _WINDOW**2
    x, y = images.float(), reference.float()
    # Sums of a window, and 49 times the sums of its squares less the squares of its sums: whole numbers, hence exact.
    sum_x, sum_y = _window_sums(x), _window_sums(y)
    scale = count * (count - 1)
    var_x = (count * _window_sums(x * x) - sum_x * sum_x).float() / scale
    var_y = (count * _window_sums(y * y) - sum_y * sum_y).float() / scale
    covariance = (count * _window_sums(x * y) - sum_x * sum_y).float() / scale
    mean_x, mean_y = sum_x.float() / count, sum_y.float() / count
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x.square() + mean_y.square() + _C1) * (var_x + var_y + _C2)
    return similarity.flatten(1).mean(1)


def pooled_psnr(squared_errors: Sequence[float], groups: Sequence[int]) -> float:
    """Return the mean over groups of the PSNR in dB of a group's mean error (E2).

    squared_errors: mean over the pixels of each image, in squares of 8-bit levels.
    groups: the group of each.
    With groups of one this is the mean over images; larger groups can only lower it (Jensen's inequality).
    """
    errors = torch.as_tensor(squared_errors, dtype=torch.float64)
    _, inverse, counts = torch.as_tensor(groups).unique(return_inverse=True, return_counts=True)
    pooled = torch.zeros(len(counts), dtype=torch.float64).index_add(0, inverse, errors) / counts
    return float((10 * torch.log10(255.0**2 / pooled.clamp_min(1e-10))).mean())


def thumbnail(images: Tensor, bits: int) -> Tensor:
    """Return each image through an RGB thumbnail of at most ``bits`` bits, enlarged bicubically.

    A pixel of the thumbnail takes 18 bits (6 a colour). Images are B 3 H W in [-1, 1], and so is what comes back.
    """
    side = max(1, math.isqrt(bits // 18))
    small = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
    small = ((small.clamp(-1, 1) + 1) / 2 * 63).round() / 63 * 2 - 1
    return F.interpolate(small, images.shape[-2:], mode="bicubic", align_corners=False).clamp(-1, 1)


def _window_sums(x: Tensor) -> Tensor:
    """Return the sum of every 7 x 7 window of whole numbers up to 255 squared, below 2^24, so that float32 holds it."""
    return F.avg_pool2d(x, _WINDOW, stride=1, divisor_override=1).int()


def _check(images: Tensor, reference: Tensor) -> None:
    if images.shape != reference.shape or images.ndim != 4 or not len(images):
        raise ImageError(f"images of one shape are compared, got {tuple(images.shape)} and {tuple(reference.shape)}")
    if images.dtype != torch.uint8 or reference.dtype != torch.uint8:
        raise ImageError(f"8-bit images (uint8) are compared, got {images.dtype} and {reference.dtype}")


def _size(images: Tensor) -> str:
    return f"{images.shape[2]} x {images.shape[3]}"
