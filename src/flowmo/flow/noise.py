"""Starting noise from seeds, so that neither batch size nor place nor device changes a reconstruction (E1)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from ..errors import ConfigError


def seeded_noise(seed: int | Sequence[int], count: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal count x shape, float32 on the CPU. One integer: the same noise for every image; a list: one each.

    Raises ConfigError when a list's length is not ``count``.
    """
    if isinstance(seed, (int, Integral)):  # NumPy's too
        return _noise(int(seed), shape).expand(count, *shape).clone()
    if len(seed) != count:
        raise ConfigError(f"{len(seed)} seeds for {count} images; give one integer, or one seed an image")
    return torch.stack([_noise(int(s), shape) for s in seed]) if count else torch.empty(0, *shape, dtype=torch.float32)


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
