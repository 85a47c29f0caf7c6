"""p(t), the distribution of noise levels in training (Section 3.2; C2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Uniform:
    """The uniform distribution, t ~ U(0, 1)."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``count`` noise levels, float32, on the generator's device or the CPU."""
        return torch.rand(count, generator=generator, device=_device(generator), dtype=torch.float32)


@dataclass(frozen=True)
class LogitNormal:
    """The logit-normal distribution, t = sigmoid(location + scale n) with n ~ N(0, 1).

    It has no mass at t = 1, hence discoloured images (Figure 7).
    """

    location: float = 0.0  # mean of logit(t)
    scale: float = 1.0  # standard deviation of logit(t)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``count`` noise levels, float32, on the generator's device or the CPU."""
        return torch.sigmoid(self.location + self.scale * _normal(count, generator))


@dataclass(frozen=True)
class ThickTailedLogitNormal:
    """The logit-normal distribution, but uniform for a share of the samples, and exactly 1 for another share.

    At t = 1 the code is all that the decoder has, so a short run learns to use it first.
    """

    uniform_mass: float = 0.1  # share of the samples that are uniform, 10 % in the paper
    location: float = 0.0  # mean of logit(t) of the logit-normal samples
    scale: float = 1.0  # their standard deviation of logit(t)
    pure_noise_mass: float = 0.0  # share of the samples that are exactly 1, 0 in the paper

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``count`` noise levels, float32, on the generator's device or the CPU."""
        choice = Uniform().sample(count, generator)
        uniform = Uniform().sample(count, generator)
        level = LogitNormal(self.location, self.scale).sample(count, generator)
        level = torch.where(choice < self.uniform_mass, uniform, level)
        return torch.where(choice >= 1 - self.pure_noise_mass, torch.ones_like(level), level)


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _normal(count: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(count, generator=generator, device=_device(generator), dtype=torch.float32)
