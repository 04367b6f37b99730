"""The Fréchet distance is that of its textbook formula, also where there are fewer clips than features."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, clips
from tests.evaluation.metrics.features import FakeLogits, correlated
from tooncrafter_jax.evaluation.metrics.frechet_video_distance import FrechetVideoDistance, frechet_distance
from tooncrafter_jax.evaluation.metrics.i3d_features import I3DFeatures


def by_matrix_square_root(first: np.ndarray, second: np.ndarray) -> float:
    """With covariances and scipy's square root of a matrix (Schur), which shares nothing with singular values."""
    from scipy.linalg import sqrtm

    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)  # unbiased by default
    root = np.real(sqrtm(a @ b))
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))


@pytest.mark.parametrize(("clips_a", "clips_b", "features"), [(300, 300, 40), (60, 90, 20), (500, 41, 40)])
def test_against_scipy(clips_a: int, clips_b: int, features: int) -> None:
    first, second = correlated(clips_a, features, 0), correlated(clips_b, features, 1, shift=0.5)
    expected = by_matrix_square_root(first, second)
    assert expected > 1
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_against_scipy_with_fewer_clips_than_features() -> None:
    """Singular covariances: the root of what rounding leaves of a zero is 1e-8 in scipy, times some hundred
    features.
    """
    first, second = correlated(50, 120, 0), correlated(60, 120, 1, shift=0.5)
    assert frechet_distance(first, second) == pytest.approx(by_matrix_square_root(first, second), rel=1e-6)


def test_normal_distributions_of_known_distance() -> None:
    """Diagonal covariances: the sum of (s - s')² and the squared shift. The features are exactly of these moments."""
    points = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)  # unbiased covariance: identity
    assert frechet_distance(points * [2, 5], points * [3, 1] + [4, 0]) == pytest.approx(1 + 16 + 16, rel=1e-12)


@pytest.mark.parametrize("count", [30, 200])
def test_a_set_against_itself_and_in_another_order(count: int) -> None:
    features = 100 * correlated(count, 60, 0)
    assert abs(frechet_distance(features, features[::-1])) < 1e-10 * np.square(features).sum(1).mean()


def test_one_clip_has_no_covariance() -> None:
    assert np.isnan(frechet_distance(np.zeros((1, 4)), np.zeros((3, 4))))


def test_rows_of_batches_make_the_same_number_as_rows_of_all() -> None:
    truth, made = clips(6), clips(12)[6:]
    metric = FrechetVideoDistance(I3DFeatures(FakeLogits()))
    together = metric.measure(batch(made, truth))
    parts = [metric.measure(batch(made[i : i + 2], truth[i : i + 2])) for i in (0, 2, 4)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in together}
    assert metric.summarise(joined) == metric.summarise(together) > 0
    assert metric.summarise(metric.measure(batch(truth, truth))) == pytest.approx(0, abs=1e-10)
    assert metric.by_frame(together) is None
