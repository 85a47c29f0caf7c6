"""Stage 2: how many tokens are masked, in training and while decoding (Section 3.5, MaskGIT; F1)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import ConfigError

Schedule = Literal["arccos", "cosine", "linear"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def masked_share(schedule: Schedule, progress: float) -> float:
    """Return gamma(r), the share of tokens that is masked at progress r in [0, 1], from 1 at r = 0 to 0 at r = 1.

    arccos: (2 / pi) arccos r, as in TiTok.
    cosine: cos(pi r / 2), as in MaskGIT.
    linear: 1 - r.
    Raises ConfigError for another schedule.
    """
    if schedule == "arccos":
        return math.acos(progress) * 2 / math.pi
    if schedule == "cosine":
        return math.cos(progress * math.pi / 2)
    if schedule == "linear":
        return 1 - progress
    raise ConfigError(f"there is no mask schedule {schedule!r}; choose from {', '.join(SCHEDULES)}")


def random_masks(count: int, length: int, schedule: Schedule, generator: torch.Generator) -> Tensor:
    """Return random masks of sequences: bool count x length, True where masked, on the device of ``generator``.

    Each sequence has its own r ~ U(0, 1) and round(gamma(r) length) masked places, at least one, chosen evenly.
    """
    progress = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float32).tolist()
    numbers = [max(1, round(length * masked_share(schedule, r))) for r in progress]
    order = torch.rand(count, length, generator=generator, device=generator.device, dtype=torch.float32)
    order = order.argsort(1).argsort(1)
    return order < torch.tensor(numbers, device=generator.device)[:, None]


def tokens_left(length: int, num_steps: int, schedule: Schedule = "arccos") -> list[int]:
    """Return the number of tokens that are still masked after each step of a decoding; the last is 0.

    After step k of n it is floor(gamma((k + 1) / n) length), but at least one fewer than before, and enough that each
    later step has one to fix. With more steps than tokens there is one step a token.
    Raises ConfigError for fewer than one token or step.
    """
    if length < 1 or num_steps < 1:
        raise ConfigError(f"decoding needs at least one token and one step, got {length} and {num_steps}")
    steps = min(num_steps, length)
    left, before = [], length
    for k in range(steps):
        wanted = math.floor(length * masked_share(schedule, (k + 1) / steps) + 1e-9)
        before = max(min(wanted, before - 1), steps - 1 - k)
        left.append(before)
    return left
