"""Stage 2: the settings by which tokens are drawn, which are stored with a generator (Section 3.5, A.3; F1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .schedule import SCHEDULES, Schedule

Decay = Literal["none", "linear", "cosine"]
Convention = Literal["maskgit", "titok"]
Order = Literal["sure", "coarse"]


@dataclass(frozen=True)
class DecodeSettings:
    """The settings by which tokens are drawn.

    The defaults are the paper's where it says: 64 steps, guidance 1.5 without decay, an annealed softmax temperature.
    The convention "titok" reads the numbers as TiTok does, whose values are temperature 1.3, final_temperature 0.5 and
    choice_noise 2.8. Guided logits are then c + s (c - u), so that 0 is no guidance, divided by the temperature.
    The noise, which falls with the steps, is added to the logits, whose largest is the token; there is no draw from
    the softmax. Noise of its own is added to the logit of that token, which is its confidence.
    Raises ConfigError for a setting out of range.
    """

    num_steps: int = 64  # at most; a sequence of fewer tokens takes one step a token
    schedule: Schedule = "arccos"  # of the tokens that are still masked, see ``masked_share``
    temperature: float = 1.0  # of the softmax that a token is drawn from, at the first step; 0 takes the likeliest
    final_temperature: float = 0.5  # the same at the last step; linear in between
    choice_noise: float = 4.5  # Gumbel noise on the confidences, times the share of steps to come
    guidance_scale: float = 1.5  # 1 is none, and half the cost
    guidance_decay: Decay = "none"  # or guidance rises from 1, linearly or along a half cosine, as more is known
    convention: Convention = "maskgit"  # by which the numbers are read, see above
    order: Order = "sure"  # the surest first; coarse: the first integers of all tokens, then the second ones, and so on

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule must be one of {', '.join(SCHEDULES)}; got {self.schedule!r}")
        for name in ("temperature", "final_temperature", "choice_noise"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be at least 0, got {value}")
        if not math.isfinite(self.guidance_scale):
            raise ConfigError(f"guidance_scale must be a number, got {self.guidance_scale}")
        if self.guidance_decay not in ("none", "linear", "cosine"):
            raise ConfigError(f"guidance_decay must be none, linear or cosine; got {self.guidance_decay!r}")
        if self.convention not in ("maskgit", "titok"):
            raise ConfigError(f"convention must be maskgit or titok; got {self.convention!r}")
        if self.order not in ("sure", "coarse"):
            raise ConfigError(f"order must be sure or coarse; got {self.order!r}")
        if self.convention == "titok" and not (self.temperature and self.final_temperature):
            raise ConfigError("TiTok's logits are divided by the temperature, which must be above 0")

    def guidance_at(self, progress: float) -> float:
        """Return the guidance scale at a share of the steps, (k + 1) / n at step k; the last has all of it."""
        rise = {"none": 1.0, "linear": progress, "cosine": (1 - math.cos(math.pi * progress)) / 2}
        more = self.guidance_scale if self.convention == "titok" else self.guidance_scale - 1
        return 1 + more * rise[self.guidance_decay]

    def temperature_at(self, progress: float) -> float:
        """Return the temperature at a share of the steps, k / (n - 1) at step k."""
        return self.temperature + (self.final_temperature - self.temperature) * progress
