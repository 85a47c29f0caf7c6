"""Paired differences and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from flowmo.errors import DataError
from flowmo.metrics.bootstrap import paired_bootstrap


def test_the_interval_is_the_normal_one_for_many_pictures() -> None:
    random = np.random.RandomState(1)
    b = random.normal(20, 4, 2000)
    a = b + random.normal(0.05, 0.5, 2000)
    found = paired_bootstrap(a, b)
    mean, error = (a - b).mean(), (a - b).std() / np.sqrt(2000)
    assert found.mean == pytest.approx(mean)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.05 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.05 * error)


def test_it_is_paired_and_repeatable() -> None:
    """A difference that is the same for every picture has no uncertainty, however much the pictures differ."""
    b = np.random.RandomState(0).normal(20, 4, 50)
    assert paired_bootstrap(b + 1, b) == pytest.approx((1, 1, 1))
    a = b + np.linspace(-1, 1, 50)
    assert paired_bootstrap(a, b, 500, seed=3) == paired_bootstrap(a, b, 500, seed=3)
    assert paired_bootstrap(a, b, 500, seed=3) != paired_bootstrap(a, b, 500, seed=4)
    low, high = paired_bootstrap(b, a, 500, seed=3)[1:]
    assert (-high, -low) == pytest.approx(paired_bootstrap(a, b, 500, seed=3)[1:])


@pytest.mark.parametrize(
    ("a", "b", "resamples", "said"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], 1000, "same pictures"),
        ([1.0], [2.0], 1000, "at least 2"),
        ([1.0, np.nan], [1.0, 2.0], 1000, "not finite"),
        ([1.0, 2.0], [2.0, 1.0], 5, "resamples"),
    ],
)
def test_what_is_no_pair_is_refused(a: list, b: list, resamples: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        paired_bootstrap(np.array(a), np.array(b), resamples)
