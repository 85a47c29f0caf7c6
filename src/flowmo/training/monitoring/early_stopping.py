"""Early stopping of Stage 1B against reward hacking, and the best weights on the way (Section 3.3, A.2; D3).

Each validation of a run measures, on samples of the same held-out images by the model's own sampler, the distance that
training minimises and what it does not: PSNR, LPIPS, rFID. They are lines of the log, so a resumed run knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...metrics.table import column
from .logs import read_lines

DISTANCE, SECONDS = "distance", "validation_seconds"
OTHERS = {name: 1 if column(name).better == "higher" else -1 for name in ("rfid", "lpips", "psnr")}
"""What is not minimised, those that choose the best weights first; 1 where more is better."""

Numbers = Mapping[str, Any]


def validations_of(log: Path) -> list[dict[str, Any]]:
    """Return the validations that a run's log tells of, in order, without the time that they took."""
    return [{name: line[name] for name in line if name != SECONDS} for line in read_lines(log) if DISTANCE in line]


def best(validations: Sequence[Numbers]) -> Numbers:
    """Return the validation of the lowest rFID (D3); by LPIPS, then PSNR, where that was not measured.

    Of equals it is the first.
    """
    name = next(name for name in OTHERS if name in validations[0])
    return max(validations, key=lambda validation: OTHERS[name] * validation[name])


def hacks_reward(validation: Numbers, reference: Numbers) -> bool:
    """Return whether the distance that is minimised is lower than at ``reference``, and most others are worse."""
    measured = [name for name in OTHERS if name in validation and name in reference]
    worse = sum(OTHERS[name] * (validation[name] - reference[name]) < 0 for name in measured)
    return validation[DISTANCE] < reference[DISTANCE] and 2 * worse > len(measured)


def verdict(validations: Sequence[Numbers], patience: int) -> str | None:
    """Return why a run with these validations should stop, in words, or None to go on.

    It should stop where the last ``patience`` validations all hack the reward, seen from the best one. With a patience
    of 0 it always goes on.
    """
    if patience == 0 or len(validations) <= patience:
        return None
    reference, last = best(validations), validations[-1]
    if not all(hacks_reward(each, reference) for each in validations[-patience:]):
        return None
    names = [DISTANCE, *(name for name in OTHERS if name in last)]
    changes = ", ".join(f"{name} {reference[name]:.4g} -> {last[name]:.4g}" for name in names)
    return f"stopped early, reward hacking since {reference['images']:,} images ({changes})"
