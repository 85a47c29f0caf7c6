"""Statistics and features become metrics: rFID and sFID (Table 1, E5, E8), KID, precision, recall, Inception Score.

Pure functions of numpy arrays, in float64: nothing here knows images, networks, batches or processes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..errors import DataError
from .statistics import Statistics, check_features

_ROWS = 1024  # of a block of distances, so that 50,000 x 50,000 never exist at once


def frechet(a: Statistics, b: Statistics) -> float:
    """Return the squared Fréchet distance of two Gaussians, at least 0.

    It is |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).
    With factors F^T F = C, the trace of the root is the nuclear norm of F_a F_b^T, which no rounding makes complex.
    Raises DataError for statistics of different widths.
    """
    return _frechet(a.mean, a.factor, b.mean, b.factor)


def frechet_of_features(a: np.ndarray, b: np.ndarray) -> float:
    """Return :func:`frechet` of the statistics of features (N, D) and (M, D).

    It is exact, and fast where N and M are below D.
    """
    (mean_a, factor_a), (mean_b, factor_b) = _mean_and_factor(a), _mean_and_factor(b)
    return _frechet(mean_a, factor_a, mean_b, factor_b)


def frechet_to(features: np.ndarray, statistics: Statistics) -> float:
    """Return :func:`frechet` of features (N, D) and of statistics in D dimensions; it is faster where N is below D."""
    return _frechet(*_mean_and_factor(features), statistics.mean, statistics.factor)


def kid(
    a: np.ndarray, b: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the Kernel Inception Distance of features (N, D) and (M, D), and its standard error.

    The distance is unbiased, so it may be negative. It is the squared maximum mean discrepancy under the kernel
    (x . y / D + 1)^3, diagonals left out, averaged over ``subsets`` random pairs of subsets.
    subset_size: rows of a subset, or half of the smaller set where that is less.
    The error is the delete-d jackknife's, from the spread between subsets.
    Raises DataError below 4 rows.
    """
    a, b = _pair(a, b)
    fewest = min(len(a), len(b))
    if fewest < 4 or subsets < 2 or subset_size < 2:
        raise DataError(f"KID needs 4 images, 2 subsets and 2 images a subset, got {fewest}, {subsets}, {subset_size}")
    size = min(subset_size, fewest // 2)
    random = np.random.RandomState(seed)  # the one generator of numpy whose stream never changes
    values = np.empty(subsets)
    for i in range(subsets):
        rows_a = random.choice(len(a), size, replace=False)
        rows_b = random.choice(len(b), size, replace=False)
        values[i] = _squared_discrepancy(a[rows_a].astype(np.float64), b[rows_b].astype(np.float64))
    return float(values.mean()), float(values.std() * np.sqrt(size / (fewest - size)))


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Return improved precision and recall (Kynkäänniemi et al.) of features (N, D) and (M, D), both in [0, 1].

    A ball around each ``real`` reaches to its k-th nearest other ``real``. Precision is the share of ``fake`` that lies
    within some ball; recall is the same with the roles exchanged.
    Raises DataError unless both have more than k rows.
    """
    real, fake = _pair(real, fake)
    if k < 1 or min(len(real), len(fake)) <= k:
        raise DataError(f"precision and recall need more than k = {k} images on each side")
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    return _share_within(fake, real, _radii(real, k)), _share_within(real, fake, _radii(fake, k))


def inception_score(logits: np.ndarray, splits: int = 10, part_size: int | None = None) -> tuple[float, float]:
    """Return the mean and the standard deviation of the Inception Score of logits (N, classes) over consecutive parts.

    The score of a part is exp of the mean KL(p(y|x) || p(y)), from 1 to the number of classes.
    splits: the number of equal parts.
    part_size: rows of a part instead, as in ADM's evaluator, whose last part may be shorter and counts as much as any
    other.
    Raises DataError with fewer rows than parts.
    """
    logits = check_features(logits)
    if splits < 1 or (len(logits) < splits and part_size is None):
        raise DataError(f"the Inception Score of {splits} parts needs as many images, got {len(logits)}")
    ends = [i * len(logits) // splits for i in range(splits + 1)]
    if part_size is not None:
        ends = [*range(0, len(logits), part_size), len(logits)]
    scores = []
    for start, end in pairwise(ends):
        part = logits[start:end].astype(np.float64)
        log_p = part - part.max(1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
        p = np.exp(log_p)
        log_mean = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))  # 0 log 0 is 0
        scores.append(np.exp((p * (log_p - log_mean)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def _frechet(mean_a: np.ndarray, a: np.ndarray, mean_b: np.ndarray, b: np.ndarray) -> float:
    if mean_a.shape != mean_b.shape:
        raise DataError(f"features of {len(mean_a)} and of {len(mean_b)} numbers are of different networks")
    trace_of_root = np.linalg.norm(a @ b.T, "nuc")
    return max(
        0.0, float(np.square(mean_a - mean_b).sum() + np.square(a).sum() + np.square(b).sum() - 2 * trace_of_root)
    )


def _mean_and_factor(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and a factor of the covariance, the centred rows themselves where they are fewer than D."""
    features = check_features(features)
    if not 2 <= len(features) < features.shape[1]:
        statistics = Statistics.of(features)
        return statistics.mean, statistics.factor
    features = features.astype(np.float64)
    mean = features.mean(0)
    return mean, (features - mean) / np.sqrt(len(features) - 1)


def _squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased squared MMD of rows (m, D) and (m, D)."""
    m, width = x.shape

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p @ q.T / width + 1) ** 3

    def between_others(k: np.ndarray) -> float:
        return (k.sum() - np.trace(k)) / (m * (m - 1))

    return between_others(kernel(x, x)) + between_others(kernel(y, y)) - 2 * kernel(x, y).mean()


def _radii(features: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance (N,) of each row to the k-th nearest other."""
    blocks = (features[i : i + _ROWS] for i in range(0, len(features), _ROWS))
    return np.concatenate([np.partition(_squared_distances(rows, features), k, axis=1)[:, k] for rows in blocks])


def _share_within(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Return the share of points that lie in the ball of some centre."""
    inside = 0
    for i in range(0, len(points), _ROWS):
        inside += int((_squared_distances(points[i : i + _ROWS], centres) <= radii).any(1).sum())
    return inside / len(points)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances (n, m) of rows (n, D), (m, D), exactly 0 for rows that are equal but for rounding."""
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)
    distances = squares - 2 * (a @ b.T)
    return np.where(distances < 1e-12 * squares, 0.0, distances)


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = check_features(a), check_features(b)
    if a.shape[1] != b.shape[1]:
        raise DataError(f"features of {a.shape[1]} and of {b.shape[1]} numbers are of different networks")
    return a, b
