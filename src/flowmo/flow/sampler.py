"""Integrating the probability-flow ODE from noise to image (Section 3.4, Eq. 10, 13). Knows no network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .guidance import Velocity


def euler(x: Tensor, v: Tensor, step: float) -> Tensor:
    """x + step v, in x's precision; ``step`` is known beforehand and the same for the whole batch."""
    return x.add(v.to(x.dtype), alpha=step)


def integrate(
    velocity: Velocity, x: Tensor, grid: Tensor, on_step: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """Euler steps along ``grid``, with or without gradients as the caller has it.

    velocity: any (x_t, t) -> v with t of shape (B,). x: the state at ``grid[0]``, B ...; it stays in its own
    precision. grid: (n + 1,), or B (n + 1) with levels of its own for each image. on_step(k, state) sees every
    state after step k. Works in both directions of time.
    """
    grid = grid.to(x.device)
    if grid.ndim == 1:
        grid = grid.expand(x.shape[0], -1)
    for k in range(grid.shape[1] - 1):
        step = (grid[:, k + 1] - grid[:, k]).to(x.dtype)
        v = velocity(x, grid[:, k].to(x.dtype))
        x = x + step.reshape(-1, *(1,) * (x.ndim - 1)) * v.to(x.dtype)
        if on_step is not None:
            on_step(k, x)
    return x
