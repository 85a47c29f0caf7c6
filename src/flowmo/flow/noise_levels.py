"""p(t), the distribution of noise levels in training (Section 3.2; C2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Uniform:
    """t ~ U(0, 1)."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(count, generator=generator, device=_device(generator), dtype=torch.float32)


@dataclass(frozen=True)
class LogitNormal:
    """t = sigmoid(location + scale n), n ~ N(0, 1): no mass at t = 1, hence discoloured images (Figure 7)."""

    location: float = 0.0
    scale: float = 1.0

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.sigmoid(self.location + self.scale * _normal(count, generator))


@dataclass(frozen=True)
class ThickTailedLogitNormal:
    """Logit-normal, but uniform for a share ``uniform_mass`` of the samples (10 % in the paper), and exactly 1
    for a share ``pure_noise_mass`` (0 in the paper): there the code is all the decoder has to go by, so that a
    short run learns to read it first."""

    uniform_mass: float = 0.1
    location: float = 0.0
    scale: float = 1.0
    pure_noise_mass: float = 0.0

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        choice = Uniform().sample(count, generator)
        uniform = Uniform().sample(count, generator)
        level = LogitNormal(self.location, self.scale).sample(count, generator)
        level = torch.where(choice < self.uniform_mass, uniform, level)
        return torch.where(choice >= 1 - self.pure_noise_mass, torch.ones_like(level), level)


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _normal(count: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(count, generator=generator, device=_device(generator), dtype=torch.float32)
