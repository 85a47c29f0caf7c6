"""Integrating the probability-flow ODE between noise and image (Section 3.4, Eq. 10, 13). Knows no network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .guidance import Velocity
from .solvers import Solver, solve


def integrate(
    velocity: Velocity,
    x: Tensor,
    grid: Tensor,
    on_step: Callable[[int, Tensor], None] | None = None,
    solver: Solver = "euler",
) -> Tensor:
    """Return the state at the end of ``grid``, with or without gradients as the caller has it.

    Works in both directions of time.

    velocity: any (x_t, t) -> v with t of shape (B,).
    x: the state at ``grid[0]``, B ...; it stays in its own precision.
    grid: (n + 1,), or B (n + 1) with levels of its own for each image, for Euler's solver alone.
    on_step: called as ``on_step(k, state)`` with the state after each step k.
    """
    grid = grid.to(x.device)
    if grid.ndim == 1:
        given = grid.to(x.dtype)
        return solve(lambda y, k: velocity(y, given[k].expand(len(y))), x, grid.tolist(), solver, on_step)
    return solve(lambda y, k: velocity(y, grid[:, k].to(x.dtype)), x, grid.unbind(1), "euler", on_step)
