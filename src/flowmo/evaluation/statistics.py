"""Features -> statistics: the second of the three pure steps behind rFID, sFID and FD (Table 1, FACTS E5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import DataError

_ROWS = 1024  # at once, which bounds the memory; a constant, so that sums are always taken in the same order


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a Fréchet distance keeps of N features of D numbers: count N, mean (D,), covariance (D, D), float64.

    The covariance is that of a sample, divided by N - 1, as ``numpy.cov`` has it.
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Statistics:
        """features: (N, D), N at least 2, in the order of the images.

        Rows are summed in float64 and in their order, so that the same features give the same statistics bit for bit,
        whatever batches or processes computed them. Raises DataError for another shape or for values not finite.
        """
        features = check_features(features)
        count, width = features.shape
        if count < 2:
            raise DataError(f"a covariance needs the features of at least 2 images, got {count}")
        mean = sum((rows.sum(0) for rows in _blocks(features)), np.zeros(width)) / count
        covariance = np.zeros((width, width))
        for rows in _blocks(features):
            rows = rows - mean
            covariance += rows.T @ rows
        return cls(count, mean, covariance / (count - 1))


def check_features(features: np.ndarray) -> np.ndarray:
    """The array itself. Raises DataError unless it is (N, D) of finite numbers."""
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f":
        raise DataError(f"features are one row of numbers an image, got an array of {features.dtype} {features.shape}")
    if not all(np.isfinite(features[i : i + _ROWS]).all() for i in range(0, len(features), _ROWS)):
        raise DataError("some features are not finite: an image or a network is damaged")
    return features


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    return (features[i : i + _ROWS].astype(np.float64) for i in range(0, len(features), _ROWS))
