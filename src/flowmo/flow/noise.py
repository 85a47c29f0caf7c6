"""Starting noise from seeds, so that neither batch size nor place nor device changes a reconstruction (E1)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from ..errors import ConfigError


def seeded_noise(seed: int | Sequence[int], count: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise, count x shape, float32 on the CPU.

    seed: one integer gives every image the same noise, a list one each.
    Raises ConfigError for anything else, and when a list's length is not ``count``.
    """
    if isinstance(seed, (int, Integral)):  # NumPy's too
        noise = _noise(int(seed), shape)[None]
        return noise if count == 1 else noise.repeat(count, *(1 for _ in shape))
    try:
        seeds = [operator.index(s) for s in seed]
    except TypeError:
        raise ConfigError(f"a seed is one integer, or a list of one an image; got {seed!r}") from None
    if len(seeds) != count:
        raise ConfigError(f"{len(seeds)} seeds for {count} images; give one integer, or one seed an image")
    if count == 1:  # one large image is not copied
        return _noise(seeds[0], shape)[None]
    return torch.stack([_noise(s, shape) for s in seeds]) if count else torch.empty(0, *shape, dtype=torch.float32)


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
