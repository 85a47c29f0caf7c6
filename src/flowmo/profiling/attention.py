"""Attention is timed at a model's own shape by each kernel that PyTorch has for the device (Section 3.1)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..config import FlowMoConfig
from .flops import synchronize

KERNELS = {
    "plain": SDPBackend.MATH,
    "flash attention": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}


class Kernel(NamedTuple):
    """One attention kernel in one precision; its numbers are None where it cannot run."""

    name: str  # in words
    dtype: str  # "float32", "bfloat16"
    forward: float | None  # seconds of a forward pass
    both: float | None  # seconds of a forward pass with its backward pass
    flops: float | None  # FLOP/s of the forward pass
    difference: float | None  # the largest from the plain kernel in float32
    why: str | None = None  # the reason where it cannot run


def attention_kernels(
    config: FlowMoConfig, batch_size: int, device: torch.device, repeats: int = 5
) -> Iterator[Kernel]:
    """Yield each kernel in float32 and bfloat16 on the sequences of ``config``'s decoder, ``batch_size`` at a time."""
    side = config.decoder
    size = (config.image_size, config.image_size)
    length = config.tokens_of(size) + (config.image_size // side.patch_size) ** 2
    shape = (batch_size, side.heads, length, side.width // side.heads)
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=generator).to(device) for _ in range(3)]
    scale = 8.0 / shape[-1]
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        plain = F.scaled_dot_product_attention(parts[0][:1], parts[1][:1], parts[2][:1], scale=scale)
    work = 4 * batch_size * side.heads * length**2 * shape[-1]
    for dtype in (torch.float32, torch.bfloat16):
        own = [part.to(dtype).requires_grad_() for part in parts]
        name_of_type = str(dtype).removeprefix("torch.")
        for name, backend in KERNELS.items():
            try:
                with sdpa_kernel(backend):
                    forward, both, first = _timed(own, scale, device, repeats)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
                yield Kernel(name, name_of_type, None, None, None, None, reason)
                continue
            difference = float((first - plain).abs().max())
            yield Kernel(name, name_of_type, forward, both, work / forward, difference)


def _timed(
    parts: list[torch.Tensor], scale: float, device: torch.device, repeats: int
) -> tuple[float, float, torch.Tensor]:
    """Return seconds forward, forward and backward, and the result for the first image, after one run of each."""

    def once(backward: bool) -> tuple[float, torch.Tensor]:
        synchronize(device)
        start = time.perf_counter()
        result = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], scale=scale)
        if backward:
            torch.autograd.grad(result.float().sum(), parts)
        synchronize(device)
        return time.perf_counter() - start, result

    _, result = once(True)
    with torch.no_grad():
        once(False)
        forward = statistics.median(once(False)[0] for _ in range(repeats))
    both = statistics.median(once(True)[0] for _ in range(repeats))
    return forward, both, result[:1].detach().float()
