"""What changes over every run, as functions of the images seen: learning rate and EMA decay (A12, A16).

Each is a function of the configuration and the position alone, so a resumed run continues exactly.
"""

from __future__ import annotations

from ..configuration.run_config import RunConfig


def learning_rate(config: RunConfig, images_seen: int) -> float:
    """Return the learning rate of the next update.

    It rises linearly over ``warmup_images``, is constant, and falls linearly to 0 over the last ``cooldown_images``.
    """
    rise = (images_seen + config.batch_size) / config.warmup_images if config.warmup_images else 1.0
    fall = (config.images - images_seen) / config.cooldown_images if config.cooldown_images else 1.0
    return config.learning_rate * max(0.0, min(1.0, rise, fall))


def ema_decay(config: RunConfig, step: int) -> float | None:
    """Return the decay after step number ``step`` (from 0), or None where this step updates no EMA.

    The horizon follows the run's length, and a short EMA at the very start forgets the random initialisation: with
    0.9999 its share is 0.67 after 4,000 steps.
    """
    if (step + 1) % config.ema_every:
        return None
    if config.ema_decay is not None:
        return config.ema_decay**config.ema_every
    horizon = max(1.0, config.ema_horizon * config.images / config.batch_size)
    return min(1 - 1 / horizon, (step + 1) / (step + 10)) ** config.ema_every
