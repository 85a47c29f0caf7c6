"""Paired differences and their uncertainty tell whether one model is better, or these pictures are only kind to it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import DataError

_AT_ONCE = 1_000_000  # numbers drawn at a time, which bounds the memory


class Difference(NamedTuple):
    """A mean difference and its 95 % interval; an interval that holds 0 shows no difference."""

    mean: float  # of a - b over pictures
    low: float  # the lower end of the interval
    high: float  # its upper end


def paired_bootstrap(a: np.ndarray, b: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Return the mean difference of two columns of numbers of the same pictures in the same order, (N,) each.

    Pictures are drawn again with replacement, both numbers of a picture together; the interval reaches from the 2.5th
    to the 97.5th percentile of the resampled means. It covers the choice of pictures alone, not that of the seed.
    Raises DataError for columns that are no pairs, or fewer than 2 of them.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise DataError(f"two columns of the same pictures are compared, at least 2; got {a.shape} and {b.shape}")
    difference = a - b
    if not np.isfinite(difference).all():
        raise DataError("some of the numbers to compare are missing or not finite")
    if resamples < 100:
        raise DataError(f"an interval of 95 % needs at least 100 resamples, got {resamples}")
    random = np.random.RandomState(seed)  # the one generator of numpy whose stream never changes
    means = np.empty(resamples)
    step = max(1, _AT_ONCE // len(difference))
    for start in range(0, resamples, step):
        rows = random.randint(0, len(difference), (min(step, resamples - start), len(difference)))
        means[start : start + step] = difference[rows].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(difference.mean()), float(low), float(high))
