"""Distances of distributions where the answer is known: closed forms, equal sets, disjoint sets, any batches."""

from __future__ import annotations

import numpy as np
import pytest

from flowmo.errors import DataError
from flowmo.metrics.distances import frechet, frechet_of_features, inception_score, kid, precision_recall
from flowmo.metrics.statistics import Statistics


def features(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Statistics:
    return Statistics(100, mean, covariance)


class TestFrechet:
    def test_of_two_gaussians_in_one_dimension(self) -> None:
        """(m_1 - m_2)^2 + (s_1 - s_2)^2."""
        a, b = gaussian(np.array([1.0]), np.array([[4.0]])), gaussian(np.array([-2.0]), np.array([[25.0]]))
        assert frechet(a, b) == pytest.approx(9 + (2 - 5) ** 2, rel=1e-12)

    def test_of_two_gaussians_with_the_same_axes(self) -> None:
        """Rotated together: the squared distances along the axes, summed."""
        axes, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
        p, q = np.array([1.0, 4.0, 9.0, 0.0, 2.25]), np.array([4.0, 4.0, 1.0, 1.0, 0.25])
        mean = np.arange(5.0)
        a, b = (gaussian(m, axes * d @ axes.T) for m, d in ((mean, p), (np.zeros(5), q)))
        expected = (mean**2).sum() + np.square(np.sqrt(p) - np.sqrt(q)).sum()
        assert frechet(a, b) == pytest.approx(expected, rel=1e-8)
        assert frechet(b, a) == pytest.approx(expected, rel=1e-8)

    def test_of_gaussians_that_do_not_commute(self) -> None:
        """tr((A B)^(1/2)) of 2 x 2 matrices is (tr A B + 2 det(A B)^(1/2))^(1/2)."""
        a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
        root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
        expected = np.trace(a) + np.trace(b) - 2 * root
        assert frechet(gaussian(np.zeros(2), a), gaussian(np.zeros(2), b)) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("count", "width"), [(300, 16), (20, 64)])
    def test_of_a_set_to_itself_is_zero(self, count: int, width: int) -> None:
        x = features(count, width)
        scale = np.trace(Statistics.of(x).covariance)
        assert frechet_of_features(x, x) == pytest.approx(0, abs=1e-10 * scale)
        assert frechet_of_features(x, x[::-1].copy()) == pytest.approx(0, abs=1e-10 * scale)

    @pytest.mark.parametrize(("count", "width"), [(300, 16), (20, 64), (64, 64)])
    def test_of_a_shifted_set_is_the_shift_squared(self, count: int, width: int) -> None:
        x = features(count, width)
        assert frechet_of_features(x, x + np.float32(0.5)) == pytest.approx(0.25 * width, rel=1e-5)

    def test_of_few_features_is_that_of_their_covariances(self) -> None:
        """Fewer than dimensions, where covariances have no inverse and take another way."""
        a, b = features(20, 48), 2 * features(30, 48, seed=1)
        assert frechet_of_features(a, b) == pytest.approx(frechet(Statistics.of(a), Statistics.of(b)), rel=1e-8)

    def test_batches_and_processes_cannot_change_it(self) -> None:
        """The features in order are all that statistics see: the same bits, however they were put together."""
        x = features(2500, 8)
        whole = Statistics.of(x)
        parts = Statistics.of(np.concatenate([x[i : i + 7] for i in range(0, len(x), 7)]))
        assert np.array_equal(whole.covariance, parts.covariance)
        assert np.array_equal(whole.mean, parts.mean)
        np.testing.assert_allclose(whole.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10)
        assert whole.covariance.dtype == np.float64


class TestKid:
    def test_is_the_polynomial_mmd(self) -> None:
        """Written out with loops, of all rows."""
        a, b = features(6, 3).astype(np.float64), features(6, 3, seed=1).astype(np.float64) + 1

        def kernel(x: np.ndarray, y: np.ndarray) -> float:
            return float((x @ y / 3 + 1) ** 3)

        inner = [np.mean([kernel(s[i], s[j]) for i in range(6) for j in range(6) if i != j]) for s in (a, b)]
        expected = sum(inner) - 2 * np.mean([kernel(x, y) for x in a for y in b])
        # Subsets are of half the rows; their mean over many is that of the whole.
        value, error = kid(a, b, subsets=4000)
        assert value == pytest.approx(expected, abs=4 * abs(error) / np.sqrt(4000) + 0.02 * abs(expected))

    def test_is_unbiased(self) -> None:
        """Of two sets from one distribution it is zero within its error, where the Fréchet distance is far from it."""
        a, b = features(400, 32), features(400, 32, seed=1)
        value, error = kid(a, b)
        assert abs(value) < 3 * error
        shifted, _ = kid(a, b + np.float32(0.5))
        assert shifted > 10 * error
        assert frechet_of_features(a, b) > 1

    def test_is_repeatable_and_needs_four(self) -> None:
        a, b = features(50, 8), features(60, 8, seed=1)
        assert kid(a, b) == kid(a, b)
        with pytest.raises(DataError, match="4 images"):
            kid(a[:3], b)


class TestPrecisionAndRecall:
    def test_of_a_set_and_itself(self) -> None:
        x = features(100, 8)
        assert precision_recall(x, x) == (1.0, 1.0)

    def test_of_sets_far_apart(self) -> None:
        x = features(100, 8)
        assert precision_recall(x, x + np.float32(100)) == (0.0, 0.0)

    def test_lost_variety_costs_recall_and_outliers_cost_precision(self) -> None:
        x = np.concatenate([features(100, 8), features(100, 8, seed=1) + np.float32(50)])
        assert precision_recall(x, x[:100]) == (1.0, 0.5)
        assert precision_recall(x[:100], x) == (0.5, 1.0)

    def test_balls_on_a_line(self) -> None:
        """Real at 0, 1, 3, 7: with k = 1 the balls reach 1, 1, 2 and 4 far."""
        real, fake = (np.array(v, np.float32)[:, None] for v in ([0, 1, 3, 7], [-1, 2.5, 11.5, 12]))
        precision, recall = precision_recall(real, fake, k=1)
        assert precision == 0.5  # -1 and 2.5
        # Fake balls reach 3.5, 3.5, 0.5 and 0.5: [-4.5, 2.5] and [-1, 6] hold 0, 1 and 3.
        assert recall == 0.75


class TestInceptionScore:
    def test_of_certain_and_even_classes_is_their_number(self) -> None:
        logits = np.tile(100 * np.eye(5, dtype=np.float32), (20, 1))
        assert inception_score(logits) == pytest.approx((5, 0), abs=1e-6)

    def test_of_equal_answers_is_one(self) -> None:
        logits = np.tile(features(1, 7), (30, 1))
        assert inception_score(logits) == pytest.approx((1, 0), abs=1e-6)

    def test_of_parts_of_one_size_the_last_is_shorter(self) -> None:
        """As ADM's evaluator cuts 12 samples into parts of 5: 5, 5 and 2, each of which counts as much."""
        logits = 3 * features(12, 4)
        alone = [inception_score(logits[start : start + 5], 1)[0] for start in (0, 5, 10)]
        assert inception_score(logits, part_size=5) == pytest.approx((np.mean(alone), np.std(alone)))
        assert inception_score(logits, part_size=5)[0] != pytest.approx(inception_score(logits, 3)[0], rel=1e-3)
        assert inception_score(logits, part_size=12) == inception_score(logits, 1)


@pytest.mark.parametrize(
    "bad", [np.zeros(3, np.float32), np.zeros((0, 3), np.float32), np.full((9, 3), np.nan, np.float32)]
)
def test_what_are_no_features_is_refused(bad: np.ndarray) -> None:
    good = features(9, 3)
    for distance in (frechet_of_features, kid, precision_recall):
        with pytest.raises(DataError):
            distance(bad, good)


def test_features_of_different_networks_are_refused() -> None:
    for distance in (frechet_of_features, kid, precision_recall):
        with pytest.raises(DataError, match="different networks"):
            distance(features(9, 3), features(9, 4))
