"""Time grids and noise levels: shapes that the paper draws, and distributions against their closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowmo.errors import ConfigError
from flowmo.flow import (
    LogitNormal,
    ThickTailedLogitNormal,
    Uniform,
    level_from_sigma,
    random_grid,
    seeded_noise,
    shifted_grid,
    uniform_grid,
)


@given(st.integers(1, 60), st.floats(0.1, 8))
def test_shifted_grid_is_equation_14(steps: int, rho: float) -> None:
    grid = shifted_grid(steps, rho)
    assert grid.shape == (steps + 1,)
    assert grid[0] == 1.0
    assert grid[-1] == 0.0
    assert (grid.diff() < 0).all()
    for k in range(steps + 1):
        assert math.isclose(float(grid[k]), ((steps - k) / steps) ** rho, rel_tol=1e-9, abs_tol=1e-12)


def test_the_ends_of_rho() -> None:
    assert torch.equal(shifted_grid(8, 1.0), uniform_grid(8))
    assert torch.allclose(uniform_grid(8).diff(), torch.full((8,), -1 / 8, dtype=torch.float64))
    assert shifted_grid(25, math.inf).tolist() == [1.0, 0.0]
    assert shifted_grid(1, 4.0).tolist() == [1.0, 0.0]
    assert float(shifted_grid(25, 4.0)[1]) < 0.85  # the first step is the largest: most of the way at high noise
    assert (shifted_grid(25, 4.0).diff().diff() > 0).all()


@pytest.mark.parametrize(("steps", "rho"), [(0, 4.0), (-1, 4.0), (25, 0.0), (25, -1.0), (25, math.nan)])
def test_grids_that_end_nowhere_are_refused(steps: int, rho: float) -> None:
    with pytest.raises(ConfigError, match=r"num_steps|rho"):
        shifted_grid(steps, rho)


def test_random_grid_falls_from_one_to_zero() -> None:
    grid = random_grid(torch.rand(1000, 9, dtype=torch.float64))
    assert (grid[:, 0] == 1).all()
    assert (grid[:, -1] == 0).all()
    assert (grid.diff(dim=1) < 0).all()


def test_random_grid_is_the_papers_sum_of_uniforms() -> None:
    """t_i = sum over j >= i of u_j / sum of u_j (A.2): gaps proportional to eight of the nine uniforms (D1)."""
    u = torch.rand(5, 9, dtype=torch.float64)
    gaps = -random_grid(u).diff(dim=1)
    used = u[:, 1:].flip(1)
    assert torch.allclose(gaps, used / used.sum(1, keepdim=True))


def distance(draws: Tensor, distribution: Callable[[Tensor], Tensor]) -> float:
    """Kolmogorov-Smirnov statistic times sqrt(n): above 1.95 once in a thousand times if the distribution is right."""
    x = draws.double().sort().values
    n = len(x)
    expected = distribution(x)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum(expected - steps[:-1], steps[1:] - expected).max()) * math.sqrt(n)


def logit_normal(location: float, scale: float) -> Callable[[Tensor], Tensor]:
    return lambda t: 0.5 * (1 + torch.erf((torch.logit(t) - location) / scale / math.sqrt(2)))


def draw(levels: Uniform | LogitNormal | ThickTailedLogitNormal, count: int = 50_000) -> Tensor:
    return levels.sample(count, torch.Generator().manual_seed(3))


def test_uniform_levels() -> None:
    assert distance(draw(Uniform()), lambda t: t) < 1.95
    assert distance(draw(Uniform()), logit_normal(0, 1)) > 10  # the statistic does tell them apart


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (0.7, 0.5)])
def test_logit_normal_levels(location: float, scale: float) -> None:
    assert distance(draw(LogitNormal(location, scale)), logit_normal(location, scale)) < 1.95


@pytest.mark.parametrize("mass", [0.0, 0.1, 0.5, 1.0])
def test_thick_tailed_levels(mass: float) -> None:
    """C2: 90 % logit-normal and 10 % uniform in the paper, so some levels are close to 1 (Figure 7)."""
    levels = draw(ThickTailedLogitNormal(mass))
    assert distance(levels, lambda t: mass * t + (1 - mass) * logit_normal(0, 1)(t)) < 1.95
    assert not (levels == 1).any()


@pytest.mark.parametrize("pure", [0.0, 0.3, 0.7, 1.0])
def test_pure_noise_has_its_share(pure: float) -> None:
    levels = draw(ThickTailedLogitNormal(0.1 * (1 - pure), pure_noise_mass=pure))
    share = float((levels == 1).double().mean())
    assert abs(share - pure) < 4 * math.sqrt(pure * (1 - pure) / len(levels)) + 1e-9
    if pure < 1:
        assert distance(levels[levels < 1], lambda t: 0.1 * t + 0.9 * logit_normal(0, 1)(t)) < 1.95


def test_levels_follow_their_generator() -> None:
    levels = ThickTailedLogitNormal()
    assert torch.equal(draw(levels, 10), draw(levels, 10))
    generator = torch.Generator().manual_seed(3)
    assert not torch.equal(levels.sample(10, generator), levels.sample(10, generator))


def test_noise_levels_of_the_edm_convention() -> None:
    """x + sigma n, scaled by 1 / (1 + sigma), is the straight path at this level."""
    assert level_from_sigma(0.17) == pytest.approx(0.1453, abs=5e-5)
    assert level_from_sigma(1.02) == pytest.approx(0.5050, abs=5e-5)
    for sigma in (0.01, 0.5, 3.0):
        t = level_from_sigma(sigma)
        assert t / (1 - t) == pytest.approx(sigma)


def test_wrong_number_of_seeds() -> None:
    with pytest.raises(ConfigError, match="2 seeds for 3 images"):
        seeded_noise([1, 2], 3, (3, 8, 8))
