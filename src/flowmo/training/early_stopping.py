"""Early stopping of Stage 1B against reward hacking, and the best weights on the way (Section 3.3, A.2; D3).

Each check of a run measures, on the same held-out images painted by the model's own sampler, the distance that training
minimises and what it does not: PSNR, LPIPS, rFID. The checks are lines of the run's log, so a resumed run knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .logs import read_lines

DISTANCE = "distance"
OTHERS = {"rfid": -1, "lpips": -1, "psnr": 1}
"""What is not minimised, those that choose the best weights first; 1 where more is better."""

Numbers = Mapping[str, Any]


def checks_of(log: Path) -> list[dict[str, Any]]:
    """The checks that a run's log tells of, in order."""
    return [line for line in read_lines(log) if DISTANCE in line]


def best(checks: Sequence[Numbers]) -> Numbers:
    """The check of the lowest rFID (D3); by LPIPS, then PSNR, where that was not measured. The first of equals."""
    name = next(name for name in OTHERS if name in checks[0])
    return max(checks, key=lambda check: OTHERS[name] * check[name])


def hacks_reward(check: Numbers, reference: Numbers) -> bool:
    """Whether the distance that is minimised is lower than at ``reference``, and most of the others are worse."""
    measured = [name for name in OTHERS if name in check and name in reference]
    worse = sum(OTHERS[name] * (check[name] - reference[name]) < 0 for name in measured)
    return check[DISTANCE] < reference[DISTANCE] and 2 * worse > len(measured)


def verdict(checks: Sequence[Numbers], patience: int) -> str | None:
    """Why a run with these checks should stop, in words: the last ``patience`` of them all hack the reward, seen from
    the best one. None to go on; always with a patience of 0."""
    if patience == 0 or len(checks) <= patience:
        return None
    reference, last = best(checks), checks[-1]
    if not all(hacks_reward(check, reference) for check in checks[-patience:]):
        return None
    names = [DISTANCE, *(name for name in OTHERS if name in last)]
    changes = ", ".join(f"{name} {reference[name]:.4g} -> {last[name]:.4g}" for name in names)
    return f"stopped early, reward hacking since {reference['images']:,} images ({changes})"
