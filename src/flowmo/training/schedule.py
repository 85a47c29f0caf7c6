"""What changes over a run, as functions of the images seen: learning rate, p(t), code dropout, EMA decay.

Each is a function of the configuration and the position alone, so a resumed run continues exactly.
"""

from __future__ import annotations

from ..flow import ThickTailedLogitNormal
from .config import TrainConfig
from .run_config import RunConfig


def learning_rate(config: RunConfig, images_seen: int) -> float:
    """Linear warm-up, constant, linear to zero over the last ``cooldown_images``."""
    rise = (images_seen + config.batch_size) / config.warmup_images if config.warmup_images else 1.0
    fall = (config.images - images_seen) / config.cooldown_images if config.cooldown_images else 1.0
    return config.learning_rate * max(0.0, min(1.0, rise, fall))


def annealed(config: TrainConfig, images_seen: int) -> float:
    """How much of the curriculum is over: 0 during it, 1 after the annealing and in runs without one."""
    n = config.noise_levels
    past = images_seen - n.curriculum_images
    if past < 0:
        return 0.0
    return min(1.0, past / n.anneal_images) if n.anneal_images else 1.0


def noise_levels(config: TrainConfig, images_seen: int) -> ThickTailedLogitNormal:
    """p(t) at this point of the run."""
    n, a = config.noise_levels, annealed(config, images_seen)
    mass = (1 - a) * n.curriculum_mass + a * n.pure_noise_mass
    return ThickTailedLogitNormal(n.uniform_mass * (1 - mass), n.location, n.scale, mass)


def code_dropout(config: TrainConfig, images_seen: int) -> float:
    return config.code_dropout * annealed(config, images_seen)


def ema_decay(config: RunConfig, step: int) -> float | None:
    """Decay after step number ``step`` (from 0), or None where this step updates no average. The horizon follows the
    run's length, and a short average at the very start forgets the random initialisation: with 0.9999 its share is
    0.67 after 4,000 steps."""
    if (step + 1) % config.ema_every:
        return None
    if config.ema_decay is not None:
        return config.ema_decay**config.ema_every
    horizon = max(1.0, config.ema_horizon * config.images / config.batch_size)
    return min(1 - 1 / horizon, (step + 1) / (step + 10)) ** config.ema_every
