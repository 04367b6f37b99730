"""The kernel distance is that of its definition, pair by pair, and unbiased."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, clips
from tests.evaluation.metrics.features import FakeLogits, correlated
from tooncrafter_jax.evaluation.metrics.i3d_features import I3DFeatures
from tooncrafter_jax.evaluation.metrics.kernel_video_distance import KernelVideoDistance, kernel_distance


def by_pairs(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, a pair at a time."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / 400 + 1.0) ** 3

    own = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    return float(sum(own) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


@pytest.mark.parametrize(("first", "second"), [(12, 12), (5, 17)])
def test_against_a_double_loop(first: int, second: int) -> None:
    x, y = 10 * correlated(first, 30, 0), 10 * correlated(second, 30, 1, shift=0.3)
    expected = by_pairs(x, y)
    assert abs(expected) > 1
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_two_sets_of_one_distribution_have_zero_on_average() -> None:
    """400 pairs of sets; the mean is within 3.5 standard errors, where counting a clip with itself would be many
    off.
    """
    random = np.random.default_rng(5)
    values = np.array([kernel_distance(*(5 * random.normal(size=(2, 8, 30)))) for _ in range(400)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3.5 * error
    diagonal = np.mean([((25 * random.chisquare(30)) / 400 + 1) ** 3 for _ in range(4000)])
    assert 2 * (diagonal - 1) / 8 > 10 * error  # what counting a clip with itself would add


def test_paired_sets_have_zero_on_average() -> None:
    """Row i of the second set is nearly row i of the first; comparing the two would pull the estimate down."""
    random = np.random.default_rng(6)
    first = 5 * random.normal(size=(400, 8, 30))
    second = 0.9 * first + 5 * np.sqrt(1 - 0.9**2) * random.normal(size=first.shape)
    values, unpaired = (
        np.array([kernel_distance(x, y, paired=paired) for x, y in zip(first, second, strict=True)])
        for paired in (True, False)
    )
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3.5 * error
    assert unpaired.mean() < -10 * error
    assert kernel_distance(first[0], first[0], paired=True) == 0
    with pytest.raises(ValueError, match="8 and 7 rows"):
        kernel_distance(first[0], first[0][:7], paired=True)


def test_one_clip_has_no_pairs() -> None:
    assert np.isnan(kernel_distance(np.zeros((3, 4)), np.zeros((1, 4))))


def test_the_metric_compares_what_was_made_with_the_truth() -> None:
    metric = KernelVideoDistance(I3DFeatures(FakeLogits()))
    rows = metric.measure(batch(clips(8)[4:], clips(4)))
    assert metric.summarise(rows) == kernel_distance(FakeLogits()(clips(8)[4:]), FakeLogits()(clips(4)), paired=True)
    assert metric.by_frame(rows) is None
