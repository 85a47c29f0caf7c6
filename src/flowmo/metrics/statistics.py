"""Features become statistics, the second of the three pure steps behind rFID, sFID and FD (Table 1, FACTS E5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import DataError

_ROWS = 1024  # at once, which bounds the memory; a constant, so that sums are always taken in the same order


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a Fréchet distance keeps of N features of D numbers."""

    count: int  # N
    mean: np.ndarray  # (D,), float64
    covariance: np.ndarray  # (D, D), float64, that of a sample, divided by N - 1, as ``numpy.cov`` has it

    @cached_property
    def factor(self) -> np.ndarray:
        """Return F (D, D) of F^T F = covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T

    @classmethod
    def of(cls, features: np.ndarray) -> Statistics:
        """Return the statistics of features (N, D), N at least 2, in the order of the images.

        Rows are summed in float64 and in their order, so that the same features give the same statistics bit for bit,
        whatever batches or processes computed them.
        Raises DataError for another shape or for values not finite.
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
    """Return the array itself. Raises DataError unless it is (N, D) of finite numbers."""
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f":
        raise DataError(f"features are one row of numbers an image, got an array of {features.dtype} {features.shape}")
    if not all(np.isfinite(features[i : i + _ROWS]).all() for i in range(0, len(features), _ROWS)):
        raise DataError("some features are not finite: an image or a network is damaged")
    return features


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    return (features[i : i + _ROWS].astype(np.float64) for i in range(0, len(features), _ROWS))


class RunningStatistics:
    """The :class:`Statistics` of features that come block by block and are not kept, for data sets of millions.

    Differences to the first block's mean are summed, so that nothing is lost to a large mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.shift = self.sum = self.products = np.zeros(0)

    def add(self, features: np.ndarray) -> None:
        """Add features (N, D), the same D every time. Raises DataError for another shape or values not finite."""
        rows = check_features(features).astype(np.float64)
        if not self.count:
            self.shift = rows.mean(0)
            self.sum, self.products = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
        rows = rows - self.shift
        self.count += len(rows)
        self.sum = self.sum + rows.sum(0)
        self.products = self.products + rows.T @ rows

    def merge(self, other: RunningStatistics) -> None:
        """Add the rows that another one has seen. Raises DataError for rows of another length."""
        if not other.count:
            return
        if not self.count:
            self.restore(other.state())
            return
        if other.shift.shape != self.shift.shape:
            raise DataError(f"statistics of {self.shift.shape} and of {other.shift.shape} numbers do not add up")
        moved, total = other.shift - self.shift, other.sum
        between = np.outer(total, moved)
        self.count += other.count
        self.sum = self.sum + total + other.count * moved
        self.products = self.products + other.products + between + between.T + other.count * np.outer(moved, moved)

    def statistics(self) -> Statistics:
        """Return the statistics of all rows so far. Raises DataError below 2 rows."""
        if self.count < 2:
            raise DataError(f"a covariance needs the features of at least 2 images, got {self.count}")
        mean = self.sum / self.count
        covariance = (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Statistics(self.count, self.shift + mean, covariance)

    def state(self) -> dict[str, np.ndarray]:
        """Return the sums for a file; :meth:`restore` takes them."""
        return {"count": np.array(self.count), "shift": self.shift, "sum": self.sum, "products": self.products}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Set the sums to those that :meth:`state` gave."""
        self.count = int(state["count"])
        self.shift, self.sum, self.products = state["shift"], state["sum"], state["products"]
