"""Euler and Heun: their order, their cost, the step to t = 0 (Section 3.4)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowmo import FlowMo
from flowmo.config import SamplerConfig
from flowmo.flow import Solver, function_evaluations, integrate, shifted_grid, uniform_grid
from flowmo.presets import tiny


def exact(x: Tensor, t: Tensor) -> Tensor:
    """dx/dt = cos(3 t) x, with x(t) = x(0) exp(sin(3 t) / 3)."""
    return torch.cos(3 * t)[:, None] * x


def error(solver: Solver, steps: int) -> float:
    start = torch.full((1, 1), math.exp(math.sin(3.0) / 3), dtype=torch.float64)
    end = integrate(exact, start, uniform_grid(steps), solver=solver)
    return abs(float(end) - 1)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_falls_with_the_solvers_order(solver: Solver, order: int) -> None:
    """Heun's last step is Euler's; one step's error is of second order, so the whole stays so."""
    ratio = error(solver, 40) / error(solver, 80)
    assert ratio == pytest.approx(2**order, rel=0.25)


def test_a_constant_velocity_is_exact_with_either() -> None:
    for solver in ("euler", "heun"):
        end = integrate(lambda x, t: torch.full_like(x, 2.0), torch.zeros(2, 3), uniform_grid(3), solver=solver)
        torch.testing.assert_close(end, torch.full((2, 3), -2.0))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (SamplerConfig(), 31),
        (SamplerConfig(solver="heun"), 31 + 24 + 6),
        (SamplerConfig(guidance_scale=1.0, solver="heun"), 49),
        (SamplerConfig(num_steps=1, solver="heun"), 1),
        (SamplerConfig(num_steps=4, rho=1.0, guidance_scale=2.0, guidance_interval=(0.0, 1.0), solver="heun"), 14),
    ],
)
def test_evaluations_are_those_that_happen(sampler: SamplerConfig, expected: int) -> None:
    """Counted on a model: a guided velocity is one pass of twice the images."""
    assert function_evaluations(sampler) == expected
    model = FlowMo(tiny())
    seen: list[int] = []
    model.decoder.image_in.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    with torch.no_grad():
        model.sample(torch.ones(1, 16, 18), torch.randn(1, 3, 32, 32), sampler)
    assert sum(seen) == expected


def test_heun_needs_fewer_evaluations_for_the_same_error() -> None:
    assert error("heun", 20) < error("euler", 39) / 5


def test_levels_of_its_own_for_each_image() -> None:
    grids = torch.stack([uniform_grid(4), shifted_grid(4, 2.0)])
    ends = integrate(exact, torch.ones(2, 1, dtype=torch.float64), grids)
    for k in range(2):
        alone = integrate(exact, torch.ones(1, 1, dtype=torch.float64), grids[k])
        torch.testing.assert_close(ends[k : k + 1], alone)
