"""Tensors of pixels in [-1, 1], as the networks take them, and in 8 bits; importing this does not import Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """Return uint8 ... in [0, 255] as float32 ... in [-1, 1]; :func:`to_uint8` is its inverse."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Return float ... in [-1, 1] as uint8 ... in [0, 255], rounded to nearest; values outside are clamped."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def brought_to(images: torch.Tensor, side: int | None) -> torch.Tensor:
    """Return images B 3 H W in [-1, 1], clipped, at ``side`` x ``side`` pixels by a bicubic filter; None keeps them."""
    if side is None:
        return images
    return F.interpolate(images.clamp(-1, 1), (side, side), mode="bicubic", antialias=True)


def stacked(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return images as a batch; a single one, which may be large, is not copied."""
    return images[0][None] if len(images) == 1 else torch.stack(list(images))
