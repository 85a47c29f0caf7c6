"""Guidance in a limited interval (Section 3.4, Appendix B; E1): where it acts, what it costs, what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowmo.config import SamplerConfig
from flowmo.flow import (
    PAPER_INTERVAL,
    Guidance,
    Velocity,
    function_evaluations,
    integrate,
    level_from_sigma,
    shifted_grid,
)
from flowmo.flow.guidance import idle_guidance


class Counter:
    """A velocity that notes the levels it is asked for."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.levels: list[float] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.levels.append(float(t[0]))
        return torch.full_like(x, self.value)


def sampled(guidance: Guidance, steps: int = 25, rho: float = 4.0) -> tuple[Tensor, Counter, Counter]:
    conditional, null = Counter(2.0), Counter(0.5)
    end = integrate(guidance(conditional, null), torch.zeros(2, 3, 4, 4), shifted_grid(steps, rho))
    return end, conditional, null


def test_the_papers_sampler_takes_31_passes() -> None:
    guidance = Guidance(1.5)
    _, conditional, null = sampled(guidance)
    assert len(conditional.levels) == 25
    assert len(null.levels) == 6
    assert function_evaluations(SamplerConfig()) == 31
    assert all(level_from_sigma(0.17) <= t <= level_from_sigma(1.02) for t in null.levels)


def test_scale_one_asks_for_no_null_pass() -> None:
    end, _, null = sampled(Guidance(1.0))
    assert null.levels == []
    assert torch.allclose(end, torch.full_like(end, -2.0))


@pytest.mark.parametrize(("interval", "expected"), [((0.99, 1.0), 1), ((0.0, 1.0), 25), ((0.9, 0.95), 0)])
def test_outside_the_interval_there_is_no_null_pass(interval: tuple[float, float], expected: int) -> None:
    _, _, null = sampled(Guidance(1.5, interval))
    assert len(null.levels) == expected


@pytest.mark.parametrize("scale", [0.0, 1.5, 3.0])
def test_guided_velocity(scale: float) -> None:
    """v_null + scale (v - v_null); scale 0 is the null velocity."""
    conditional: Velocity = Counter(2.0)
    velocity = Guidance(scale, (0.4, 0.6))(conditional, Counter(0.5))
    x = torch.zeros(1, 2)
    assert velocity(x, torch.tensor([0.5])).unique().item() == pytest.approx(0.5 + scale * 1.5)
    for t in (0.39, 0.61, 1.0):
        assert velocity(x, torch.tensor([t])).unique().item() == 2.0


def test_both_ends_of_the_interval_belong_to_it() -> None:
    guidance = Guidance(2.0, (0.25, 0.5))
    assert guidance.acts(0.25)
    assert guidance.acts(0.5)


def test_the_default_settings_are_the_papers() -> None:
    defaults = SamplerConfig()
    assert defaults.guidance_interval == pytest.approx(PAPER_INTERVAL)
    assert (defaults.num_steps, defaults.rho, defaults.guidance_scale) == (25, 4.0, 1.5)


def test_guidance_that_acts_at_no_step_says_so() -> None:
    """One step begins at t = 1, above the interval; with 25 steps the sampler visits it."""
    assert idle_guidance(SamplerConfig(num_steps=25, guidance_scale=2.0)) is None
    assert idle_guidance(SamplerConfig(num_steps=1, guidance_scale=1.0)) is None
    said = idle_guidance(SamplerConfig(num_steps=1, guidance_scale=2.0, guidance_interval=(0.1, 0.5)))
    assert said is not None
    assert said.startswith("2 changes nothing: it acts between the noise levels 0.10 and 0.50")
    assert "none of this decoder's 1 steps begins" in said
