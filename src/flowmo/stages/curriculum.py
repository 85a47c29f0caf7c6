"""Noise levels and code dropout over a run: p(t) (Eq. 6, C2), and the curriculum of short runs.

Each is a function of the configuration and the images seen alone, so a resumed run continues exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..errors import require
from ..flow import ThickTailedLogitNormal


@dataclass(frozen=True)
class NoiseLevelConfig:
    """The distribution p(t) of noise levels (C2), and a curriculum, which the paper does not have.

    For the first ``curriculum_images`` a share ``curriculum_mass`` of the samples sits at t = 1 and no code is dropped.
    Over the next ``anneal_images`` the share falls linearly to ``pure_noise_mass``, and code dropout sets in.
    """

    uniform_mass: float = 0.1  # share of t that is uniform
    location: float = 0.0  # mean of logit(t) of the rest
    scale: float = 1.0  # its standard deviation
    pure_noise_mass: float = 0.0  # share of t = 1 after the curriculum
    curriculum_mass: float = 0.7  # share of t = 1 during it
    curriculum_images: int = 0  # its length, 0 for none
    anneal_images: int = 0  # length of the way out of it

    def __post_init__(self) -> None:
        for name in ("uniform_mass", "pure_noise_mass", "curriculum_mass"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"noise_levels.{name} must be between 0 and 1, got {value}")
        for name in ("curriculum_images", "anneal_images"):
            value = getattr(self, name)
            require(value >= 0, f"noise_levels.{name} must be at least 0, got {value}")


class HasNoiseLevels(Protocol):
    """A stage's configuration with a flow term."""

    @property
    def noise_levels(self) -> NoiseLevelConfig: ...

    @property
    def code_dropout(self) -> float: ...


def annealed(levels: NoiseLevelConfig, images_seen: int) -> float:
    """Return how much of the curriculum is over: 0 during it, 1 after the annealing and in runs without one."""
    past = images_seen - levels.curriculum_images
    if past < 0:
        return 0.0
    return min(1.0, past / levels.anneal_images) if levels.anneal_images else 1.0


def noise_levels(config: HasNoiseLevels, images_seen: int) -> ThickTailedLogitNormal:
    """Return p(t) at this point of the run."""
    n, a = config.noise_levels, annealed(config.noise_levels, images_seen)
    mass = (1 - a) * n.curriculum_mass + a * n.pure_noise_mass
    return ThickTailedLogitNormal(n.uniform_mass * (1 - mass), n.location, n.scale, mass)


def code_dropout(config: HasNoiseLevels, images_seen: int) -> float:
    """Return the share of the codes that are dropped at this point of the run (C3)."""
    return config.code_dropout * annealed(config.noise_levels, images_seen)
