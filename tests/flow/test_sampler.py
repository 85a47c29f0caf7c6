"""The sampler on velocities whose answer is known in closed form (Section 3.4, Eq. 10, 13, 14)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowmo.flow import (
    image_estimate,
    integrate,
    interpolate,
    random_grid,
    seeded_noise,
    shifted_grid,
    uniform_grid,
    velocity_from_estimate,
    velocity_target,
)

MEAN, DEVIATION = 0.3, 0.5


def gaussian_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[z - x | x_t] for pixels x ~ N(MEAN, DEVIATION^2) and z ~ N(0, 1)."""
    t = t.reshape(-1, *(1,) * (x.ndim - 1))
    variance = ((1 - t) * DEVIATION) ** 2 + t**2
    return -MEAN + (t - (1 - t) * DEVIATION**2) / variance * (x - (1 - t) * MEAN)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(0, 1000))
def test_constant_velocity_is_exact_on_any_grid(levels: list[float], seed: int) -> None:
    """From levels[0] to levels[-1] in any order of steps, forwards and backwards."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    v = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    end = integrate(lambda *_: v, x, torch.tensor(levels, dtype=torch.float64))
    assert torch.allclose(end, x + (levels[-1] - levels[0]) * v, atol=1e-12)


@pytest.mark.parametrize("grid", [shifted_grid(64, 4.0), uniform_grid(64), shifted_grid(64, 2.0)])
def test_gaussian_data_are_reached_from_noise(grid: Tensor) -> None:
    """The exact flow takes z to MEAN + DEVIATION z, so also the samples' mean and spread are right."""
    noise = torch.randn(1, 100_000, dtype=torch.float64)
    end = integrate(gaussian_velocity, noise, grid)
    assert torch.allclose(end, MEAN + DEVIATION * noise, atol=0.1)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(end.std()) == pytest.approx(DEVIATION, rel=0.05)


def test_error_falls_in_proportion_to_the_number_of_steps() -> None:
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64)[None]

    def error(steps: int) -> float:
        end = integrate(gaussian_velocity, noise, shifted_grid(steps, 2.0))
        return float((end - (MEAN + DEVIATION * noise)).abs().max())

    errors = [error(n) for n in (10, 20, 40, 80, 160)]
    for coarse, fine in pairwise(errors[1:]):
        assert 1.7 < coarse / fine < 2.3  # Euler is of first order
    assert errors[-1] < 0.01


def test_backwards_integration_inverts() -> None:
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64)[None]

    def error(steps: int) -> float:
        grid = shifted_grid(steps, 2.0)
        image = integrate(gaussian_velocity, noise, grid)
        return float((integrate(gaussian_velocity, image, grid.flip(0)) - noise).abs().max())

    assert error(400) < 0.02
    assert error(100) / error(400) > 3


def test_one_step_from_pure_noise_is_the_image_estimate() -> None:
    noise = torch.randn(3, 8)
    ones = torch.ones(3)
    end = integrate(gaussian_velocity, noise, torch.tensor([1.0, 0.0]))
    assert torch.allclose(end, image_estimate(noise, gaussian_velocity(noise, ones), ones))


def test_each_image_may_have_its_own_grid() -> None:
    noise = torch.randn(3, 8, dtype=torch.float64)
    grid = random_grid(torch.rand(3, 9, dtype=torch.float64))
    together = integrate(gaussian_velocity, noise, grid)
    alone = [integrate(gaussian_velocity, noise[i : i + 1], grid[i]) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone))


def test_every_state_is_shown_in_order() -> None:
    seen: list[tuple[int, Tensor]] = []
    end = integrate(gaussian_velocity, torch.randn(2, 4), uniform_grid(5), on_step=lambda *state: seen.append(state))
    assert [k for k, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[-1][1], end)


def test_the_state_keeps_its_precision() -> None:
    """A network in half precision does not round the state, nor does a float64 grid widen it (A17)."""
    noise = torch.randn(2, 4)
    end = integrate(lambda x, t: gaussian_velocity(x, t).bfloat16(), noise, shifted_grid(4))
    assert end.dtype == torch.float32
    assert not torch.equal(end, end.bfloat16().float())


def test_gradients_flow_through_the_whole_chain() -> None:
    weight = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    grid = random_grid(torch.rand(2, 5, dtype=torch.float64))

    def chain(weight: Tensor, noise: Tensor) -> Tensor:
        return integrate(lambda x, t: torch.tanh(x @ weight) * (1 + t[:, None]), noise, grid)

    assert torch.autograd.gradcheck(chain, (weight, noise))


levels = st.floats(0.01, 1)


@given(st.integers(0, 1000), st.lists(levels, min_size=2, max_size=2))
def test_path_identities(seed: int, t: list[float]) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, z = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    level = torch.tensor(t, dtype=torch.float64)
    x_t, v = interpolate(x, z, level), velocity_target(x, z)
    assert torch.allclose(image_estimate(x_t, v, level), x)
    assert torch.allclose(velocity_from_estimate(x_t, x, level), v)
    assert torch.equal(interpolate(x, z, torch.tensor(0.0)), x)
    assert torch.equal(interpolate(x, z, torch.ones(2)), z)
    h = 1e-6  # v is the path's derivative, and points from the image to the noise (A4)
    assert torch.allclose((interpolate(x, z, level + h) - x_t) / h, v, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: 5, lambda: [5, 5, 5]])
def test_a_seed_means_the_same_noise_anywhere(make: Callable[[], int | list[int]]) -> None:
    noise = seeded_noise(make(), 3, (3, 8, 8))
    assert torch.equal(noise[0], noise[1])
    assert torch.equal(noise[2:], seeded_noise(5, 1, (3, 8, 8)))


def test_a_seed_for_each_image() -> None:
    noise = seeded_noise([1, 2, 3], 3, (3, 8, 8))
    assert torch.equal(noise, seeded_noise([3, 2, 1], 3, (3, 8, 8)).flip(0))
    assert not torch.equal(noise[0], noise[1])
    assert abs(float(seeded_noise(0, 1, (3, 100, 100)).std()) - 1) < 0.02
    assert seeded_noise([], 0, (3, 8, 8)).shape == (0, 3, 8, 8)
