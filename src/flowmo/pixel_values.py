"""The two ways to write a pixel: 8 bits, as files have it, and a number in [-1, 1], as the model has it."""

from __future__ import annotations

import torch


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 ... in [0, 255] -> float32 ... in [-1, 1]; :func:`to_uint8` is its inverse."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float ... in [-1, 1] -> uint8 ... in [0, 255], rounded to nearest; values outside are clamped."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
