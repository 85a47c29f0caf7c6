"""Log-likelihood by the reverse ODE (Section 3.4) where the density is known in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flowmo.errors import ConfigError
from flowmo.flow import integrate
from flowmo.flow.likelihood import (
    DEQUANTIZATION_T,
    LEVEL_WIDTH,
    Likelihood,
    Probes,
    Solver,
    likelihood_grid,
    log_likelihood,
    starting_state,
)

MEAN = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
FACTOR = torch.tensor([[0.6, 0.0, 0.0], [0.3, 0.5, 0.0], [-0.2, 0.1, 0.4]], dtype=torch.float64)
GAUSSIAN = torch.distributions.MultivariateNormal(MEAN, scale_tril=FACTOR)
MODES, SPREAD = torch.tensor([-0.6, 0.5], dtype=torch.float64), 0.15


def gaussian_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[z - x | x_t] for x ~ GAUSSIAN: the whole covariance, so that the Jacobian has entries off its diagonal."""
    assert t.unique().numel() == 1
    level, covariance = float(t[0]), FACTOR @ FACTOR.T
    mixed = (1 - level) ** 2 * covariance + level**2 * torch.eye(3, dtype=torch.float64)
    gain = (level * torch.eye(3, dtype=torch.float64) - (1 - level) * covariance) @ mixed.inverse()
    return (x - (1 - level) * MEAN) @ gain.T - MEAN


def mixture_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[z - x | x_t] for one number x of two equally likely modes of width SPREAD."""
    t = t[:, None, None]  # B 1 1 against B 1 modes
    variance = ((1 - t) * SPREAD) ** 2 + t**2
    offset = x[..., None] - (1 - t) * MODES
    weight = (-(offset**2) / (2 * variance)).softmax(-1)
    each = (t - (1 - t) * SPREAD**2) / variance * offset - MODES
    return (weight * each).sum(-1)


def mixture_log_density(x: Tensor) -> Tensor:
    each = torch.distributions.Normal(MODES, SPREAD).log_prob(x[..., None]) + math.log(0.5)
    return each.logsumexp(-1).squeeze(-1)


def exact(velocity: object, x: Tensor, steps: int, solver: Solver = "heun", rho: float = 1.0) -> Likelihood:
    return log_likelihood(velocity, x, likelihood_grid(steps, rho, 0.0), range(len(x)), solver, "exact")  # type: ignore[arg-type]


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_gaussian_data_at_the_order_of_the_solver(solver: Solver, order: int) -> None:
    x = GAUSSIAN.sample((6,))
    truth = GAUSSIAN.log_prob(x)
    errors = [float((exact(gaussian_velocity, x, n, solver).log_density - truth).abs().mean()) for n in (40, 80, 160)]
    assert errors[-1] < (0.1 if solver == "euler" else 1e-3)
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def test_two_modes() -> None:
    x = torch.tensor([[-0.9], [-0.6], [-0.05], [0.3], [0.5]], dtype=torch.float64)
    found = exact(mixture_velocity, x, 400)
    torch.testing.assert_close(found.log_density, mixture_log_density(x), atol=2e-3, rtol=0)


def test_the_density_of_two_modes_is_one_altogether() -> None:
    x = torch.linspace(-1.6, 1.6, 321, dtype=torch.float64)[:, None]
    total = torch.trapezoid(exact(mixture_velocity, x, 200).log_density.exp(), x[:, 0])
    assert float(total) == pytest.approx(1, abs=2e-3)


def test_the_noise_leads_back_to_the_image() -> None:
    x = GAUSSIAN.sample((4,))
    noise = exact(gaussian_velocity, x, 200).noise
    back = integrate(gaussian_velocity, noise, torch.linspace(1, 0, 4001, dtype=torch.float64))
    torch.testing.assert_close(back, x, atol=2e-3, rtol=0)


@pytest.mark.parametrize("probes", ["rademacher", "normal"])
def test_probes_agree_with_the_exact_trace_within_their_error(probes: Probes) -> None:
    x = GAUSSIAN.sample((16,))
    grid = likelihood_grid(20, 2.0, 0.0)
    truth = log_likelihood(gaussian_velocity, x, grid, range(16), probes="exact")
    found = log_likelihood(gaussian_velocity, x, grid, range(16), probes=probes, num_probes=64)
    deviation = (found.log_density - truth.log_density) / found.standard_error
    assert float(found.standard_error.min()) > 0
    assert float(deviation.abs().max()) < 4.5
    assert 0.5 < float(deviation.std()) < 1.8, "the stated error is not the error that is made"
    assert truth.standard_error.tolist() == [0] * 16


def test_the_jacobian_of_a_diagonal_flow_needs_one_rademacher_probe() -> None:
    """e . D e is the trace of a diagonal D whatever the signs; a normal probe has variance there."""
    x = torch.rand(3, 1, dtype=torch.float64)
    one = log_likelihood(mixture_velocity, x, likelihood_grid(10), range(3), probes="rademacher")
    whole = log_likelihood(mixture_velocity, x, likelihood_grid(10), range(3), probes="exact")
    torch.testing.assert_close(one.log_density, whole.log_density)
    assert one.standard_error.isnan().all()


def test_an_image_is_as_likely_in_any_batch() -> None:
    x = GAUSSIAN.sample((5,))
    grid = likelihood_grid(5)
    together = log_likelihood(gaussian_velocity, x, grid, [7, 8, 9, 10, 11], num_probes=2)
    alone = log_likelihood(gaussian_velocity, x[3:4], grid, [10], num_probes=2)
    torch.testing.assert_close(together.divergence[3:4], alone.divergence)
    other = log_likelihood(gaussian_velocity, x[3:4], grid, [12], num_probes=2)
    assert not torch.equal(other.divergence, alone.divergence)


def test_it_works_without_gradients_around_it_and_leaves_none() -> None:
    weight = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    x = torch.rand(2, 3, dtype=torch.float64)
    with torch.no_grad():
        found = log_likelihood(lambda x, t: weight * x, x, likelihood_grid(50, 1.0, 0.0), [0, 1])
    assert weight.grad is None
    assert not found.log_density.requires_grad
    torch.testing.assert_close(found.divergence, torch.full((2, 1), 1.5, dtype=torch.float64))


def test_bits_per_dimension() -> None:
    """A density that is uniform over [-1, 1] gives each of 255 gaps its share: log2 255 bits, nearly 8."""
    nats = torch.tensor([12 * math.log(0.5)], dtype=torch.float64)
    nothing = torch.zeros(1, dtype=torch.float64)
    found = Likelihood(nats, nothing, torch.zeros(1, 3, 2, 2), nothing, nothing[:, None])
    assert float(found.bits_per_dimension) == pytest.approx(math.log2(255))
    assert float(found.nats_per_dimension) == pytest.approx(math.log(0.5))


def test_dequantization_fills_a_level_and_no_more() -> None:
    images = torch.randint(0, 256, (2, 3, 40, 40)) / 127.5 - 1
    noisy = starting_state(images, DEQUANTIZATION_T, [3, 4])
    added = noisy - images
    assert float(added.abs().max()) <= LEVEL_WIDTH / 2 + 1e-6
    assert float(added.std()) == pytest.approx(DEQUANTIZATION_T, rel=0.02)
    assert ((noisy + 1) * 127.5).round().equal(((images + 1) * 127.5).round())
    torch.testing.assert_close(noisy[1:], starting_state(images[1:], 0.0, [4]))


def test_above_that_level_the_start_is_a_noised_image() -> None:
    images = torch.randint(0, 256, (2, 3, 40, 40)) / 127.5 - 1
    added = starting_state(images, 0.25, [3, 4]) - 0.75 * images
    assert float(added.std()) == pytest.approx(0.25, rel=0.03)
    assert float(added[0].sub(added[1]).std()) == pytest.approx(0.25 * 2**0.5, rel=0.03)


def test_a_noised_gaussian_has_the_density_of_its_level() -> None:
    start, x = 0.3, GAUSSIAN.sample((4,))
    level = torch.distributions.MultivariateNormal(
        0.7 * MEAN, 0.49 * FACTOR @ FACTOR.T + 0.09 * torch.eye(3, dtype=torch.float64)
    )
    found = log_likelihood(gaussian_velocity, x, likelihood_grid(200, 1.0, start), range(4), probes="exact")
    torch.testing.assert_close(found.log_density, level.log_prob(x), atol=1e-3, rtol=0)


def test_the_grid_is_the_samplers_read_backwards() -> None:
    grid = likelihood_grid(4, 2.0, 0.2)
    torch.testing.assert_close(grid, 0.2 + 0.8 * torch.tensor([0, 1 / 16, 1 / 4, 9 / 16, 1], dtype=torch.float64))


@pytest.mark.parametrize(
    ("grid", "seeds", "extra"),
    [
        (torch.tensor([1.0, 0.0]), [0, 1], {}),
        (torch.tensor([0.0, 0.5]), [0, 1], {}),
        (torch.tensor([1.0]), [0, 1], {}),
        (torch.tensor([0.0, 1.0]), [0], {}),
        (torch.tensor([0.0, 1.0]), [0, 1], {"solver": "rk9"}),
        (torch.tensor([0.0, 1.0]), [0, 1], {"num_probes": 0}),
    ],
)
def test_what_makes_no_likelihood_is_said(grid: Tensor, seeds: list[int], extra: dict) -> None:
    with pytest.raises(ConfigError):
        log_likelihood(lambda x, t: x, torch.zeros(2, 3), grid, seeds, **extra)
    with pytest.raises(ConfigError, match="first noise level"):
        likelihood_grid(4, 4.0, 1.0)
