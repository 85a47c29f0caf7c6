"""Steps of the ODE solvers, Euler and Heun, and what they cost (Section 3.4, Eq. 10, 13; Appendix B).

A solver knows no network: it asks for the velocity at the k-th level of a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeVar

from torch import Tensor

from ..config import SamplerConfig
from .grids import shifted_grid
from .guidance import Guidance

Solver = Literal["euler", "heun"]
Level = TypeVar("Level", float, Tensor)
"""A noise level of all images alike, or of each its own, (B,)."""
LevelVelocity = Callable[[Tensor, int], Tensor]
"""(state, k) -> velocity at the k-th level of a grid that is known beforehand."""


def euler(x: Tensor, v: Tensor, step: Level) -> Tensor:
    """Return x + step v, in x's precision; ``step`` is the same for the whole batch, or a tensor (B,)."""
    if isinstance(step, Tensor):
        return x + step.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)) * v.to(x.dtype)
    return x.add(v.to(x.dtype), alpha=step)


def solve(
    velocity: LevelVelocity,
    x: Tensor,
    levels: Sequence[Level],
    solver: Solver = "euler",
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Return the state at the last of ``levels``, from ``x`` at the first.

    levels: numbers for all images alike, or tensors (B,) for each its own.
    solver: "euler", or "heun", which takes the mean of the velocities at both ends of a step. A step that ends at t = 0
    is Euler's with either, since nothing is known of a velocity there.
    on_step: called with (k, state) after each step.
    """
    for k, now in enumerate(levels[:-1]):
        after = levels[k + 1]
        v = velocity(x, k)
        if corrected(after, solver):
            v = (v + velocity(euler(x, v, after - now), k + 1)) / 2
        x = euler(x, v, after - now)
        if on_step is not None:
            on_step(k, x)
    return x


def corrected(after: Level, solver: Solver) -> bool:
    """Return whether a step that ends at level ``after`` asks for the velocity there too."""
    return solver == "heun" and bool(after > 0)


def asked_levels(levels: Sequence[float], solver: Solver) -> list[float]:
    """Return the level of each velocity that a solver asks for along ``levels``, up or down, in its order."""
    asked: list[float] = []
    for now, after in pairwise(levels):
        asked += [now, after] if corrected(after, solver) else [now]
    return asked


def evaluations(sampler: SamplerConfig) -> tuple[tuple[float, float], ...]:
    """Return (t, guidance scale) of each velocity that a sampler asks for, in its order; 1 is no guidance.

    Samplers with equal evaluations give the same: one step with any rho or solver, a scale of 1 with any interval.
    """
    guidance = Guidance.of(sampler)
    asked = asked_levels(shifted_grid(sampler.num_steps, sampler.rho).tolist(), sampler.solver)
    return tuple((t, sampler.guidance_scale if guidance.acts(t) else 1.0) for t in asked)


def function_evaluations(sampler: SamplerConfig) -> int:
    """Return the NFE, passes of the decoder for an image: two a guided velocity, 31 in all with the paper's sampler."""
    return sum(1 if scale == 1.0 else 2 for _, scale in evaluations(sampler))
