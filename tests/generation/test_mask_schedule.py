"""How many tokens are masked: closed forms, exact counts, and the distribution in training."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from flowmo.errors import ConfigError
from flowmo.generation import SCHEDULES, masked_share, random_masks, tokens_left
from flowmo.generation.schedule import Schedule


def test_closed_forms() -> None:
    for schedule in SCHEDULES:
        shares = [masked_share(schedule, k / 50) for k in range(51)]
        assert shares[0] == 1
        assert shares[-1] == pytest.approx(0, abs=1e-15)
        assert all(b < a for a, b in pairwise(shares))
    assert masked_share("arccos", 0.5) == pytest.approx(2 / 3)
    assert masked_share("cosine", 0.5) == pytest.approx(math.sqrt(0.5))
    assert masked_share("cosine", 1 / 3) == pytest.approx(math.cos(math.pi / 6))
    assert masked_share("linear", 0.25) == 0.75
    with pytest.raises(ConfigError, match="arccos, cosine, linear"):
        masked_share("square", 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "length", "steps", "expected"),
    [
        ("linear", 16, 4, [12, 8, 4, 0]),
        ("linear", 10, 5, [8, 6, 4, 2, 0]),
        ("cosine", 16, 4, [14, 11, 6, 0]),  # 16 cos(pi k / 8): 14.78, 11.31, 6.12
        ("arccos", 16, 4, [13, 10, 7, 0]),  # 16 * 2 / pi * arccos(k / 4): 13.43, 10.67, 7.36
        ("arccos", 16, 1, [0]),
        ("cosine", 4, 4, [3, 2, 1, 0]),
        ("arccos", 3, 64, [2, 1, 0]),  # more steps than tokens
    ],
)
def test_exact_counts(schedule: Schedule, length: int, steps: int, expected: list[int]) -> None:
    assert tokens_left(length, steps, schedule) == expected


def test_the_papers_64_steps_of_512_tokens() -> None:
    left = tokens_left(512, 64, "arccos")
    assert left == [math.floor(512 * 2 / math.pi * math.acos((k + 1) / 64)) for k in range(64)]
    assert (left[0], left[31], left[62], left[63]) == (506, 341, 57, 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step_fixes_a_token_and_the_last_one_all(schedule: Schedule) -> None:
    for length in (1, 2, 5, 16, 128, 512):
        for steps in (1, 2, 3, 8, 16, 64, 100, 600):
            left = tokens_left(length, steps, schedule)
            assert len(left) == min(steps, length)
            assert left[-1] == 0
            assert all(b < a for a, b in pairwise([length, *left]))


def test_no_tokens_or_steps() -> None:
    for length, steps in ((0, 4), (4, 0)):
        with pytest.raises(ConfigError, match="at least one token and one step"):
            tokens_left(length, steps)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_masks_are_the_schedules(schedule: Schedule) -> None:
    """Numbers follow gamma(r) with r uniform, places are even, and the generator alone decides."""
    count, length = 4000, 40
    masks = random_masks(count, length, schedule, torch.Generator().manual_seed(3))
    assert torch.equal(masks, random_masks(count, length, schedule, torch.Generator().manual_seed(3)))
    numbers = masks.sum(1)
    assert numbers.min() >= 1
    assert numbers.max() == length
    draws = torch.rand(count, generator=torch.Generator().manual_seed(3)).tolist()
    assert numbers.tolist() == [max(1, round(length * masked_share(schedule, r))) for r in draws]
    mean = {"arccos": 2 / math.pi, "cosine": 2 / math.pi, "linear": 0.5}[schedule]
    assert float(numbers.float().mean()) / length == pytest.approx(mean, abs=0.02)
    assert (masks.float().mean(0) - mean).abs().max() < 0.04
