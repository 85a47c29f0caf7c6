"""Time grids: the noise levels that a sampler visits, from 1 down to exactly 0 (Section 3.4, Eq. 14; A.2; D1, E1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ConfigError


def shifted_grid(num_steps: int, rho: float = 4.0) -> Tensor:
    """Return the noise levels (k / n)^rho for k = n ... 0, shape (n + 1,), float64 (Eq. 14).

    rho = 1 is uniform, rho = inf one step from 1 to 0.
    Raises ConfigError for fewer than one step, or a rho that is not positive.
    """
    if num_steps < 1:
        raise ConfigError(f"num_steps must be at least 1, got {num_steps}")
    if not rho > 0:
        raise ConfigError(f"rho must be positive (inf is one step from t = 1), got {rho}")
    if math.isinf(rho):
        return torch.tensor([1.0, 0.0], dtype=torch.float64)
    return torch.linspace(1, 0, num_steps + 1, dtype=torch.float64) ** rho


def uniform_grid(num_steps: int) -> Tensor:
    """Return the noise levels of equal steps, those of the usual rectified-flow sampler: shape (n + 1,), float64."""
    return shifted_grid(num_steps, rho=1.0)


def random_grid(uniforms: Tensor) -> Tensor:
    """Return noise levels B (n + 1) with random gaps for Stage 1B (A.2), each row from 1 down to 0.

    uniforms: B (n + 1) in (0, 1). As published (D1), a row is the running sums of the uniforms, shifted and scaled to
    [0, 1] and read backwards. The first uniform of a row cancels; of the n gaps that remain, the last uniform gives the
    first.
    """
    sums = uniforms.cumsum(dim=-1)
    first, last = sums[..., :1], sums[..., -1:]
    return ((sums - first) / (last - first)).flip(-1)
