"""Intervals hold what they promise: for means on a known distribution, and for the Fréchet distance, which draws
overstate.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.features import FakeLogits, correlated
from tooncrafter_jax.evaluation.metrics.frechet_video_distance import FrechetVideoDistance
from tooncrafter_jax.evaluation.metrics.i3d_features import I3DFeatures
from tooncrafter_jax.evaluation.metrics.intervals import difference, interval
from tooncrafter_jax.evaluation.metrics.ssim import Ssim


def test_a_mean_is_held_in_95_of_100_cases() -> None:
    """200 sets of 12 clips of 4 frames, normal by clip; 0.95 of them is 190, give or take 3.1 by the binomial law."""
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        frames = 5 + random.normal(size=(12, 1)) + 0.5 * random.normal(size=(12, 4))
        found = interval(Ssim(), {"ssim": frames}, draws=60, seed=seed)
        assert found.value == pytest.approx(frames.mean())
        held += found.low <= 5 <= found.high
    assert 179 <= held <= 198  # three deviations, and a little for a spread known from 60 draws


def test_the_width_is_that_of_the_textbook() -> None:
    """Student's 97.5 % quantile for 19 degrees of freedom is 2.0930; 1500 draws know a deviation to 1.8 %."""
    values = np.random.default_rng(1).normal(size=(20, 1))
    found = interval(Ssim(), {"ssim": values}, draws=1500)
    reach = 2.0930 * values.std(ddof=1) / np.sqrt(20)
    assert found.high - found.value == pytest.approx(reach, rel=0.06)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    narrow = interval(Ssim(), {"ssim": values}, draws=1500, level=0.5)
    assert narrow.high - narrow.value == pytest.approx(reach * 0.6876 / 2.0930, rel=0.06)  # t of 75 %, 19 degrees


def test_frames_of_one_clip_are_not_taken_for_independent() -> None:
    """Sixteen equal frames say no more than one."""
    values = np.random.default_rng(2).normal(size=(30, 1))
    one, many = (interval(Ssim(), {"ssim": np.repeat(values, n, 1)}, draws=100) for n in (1, 16))
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=1e-6)


def test_the_frechet_distance_is_held() -> None:
    """Around the mean distance of sets of this size, which is known from 100 of them; draws' quantiles would lie above
    it.
    """
    metric = FrechetVideoDistance(I3DFeatures(FakeLogits()))

    def drawn(seed: int) -> dict[str, np.ndarray]:
        truth = correlated(60, 20, 7)[np.random.default_rng(seed).permutation(60)]  # the mixing of seed 7
        random = np.random.default_rng(100 + seed)
        truth = random.normal(size=(60, 20)) @ np.linalg.cholesky(np.cov(truth.T)).T
        return {"true_logits": truth, "logits": 0.7 * truth + 0.7 * random.normal(size=(60, 20)) + 0.3}

    typical = np.mean([metric.summarise(drawn(seed)) for seed in range(100)])
    found = [interval(metric, drawn(seed), draws=60, seed=seed) for seed in range(1000, 1030)]
    held = sum(one.low <= typical <= one.high for one in found)
    assert held >= 25  # of 30; 0.95 is 28.5, give or take 1.2
    widths = np.mean([one.high - one.low for one in found])
    spread = np.std([one.value for one in found])
    assert widths < 2 * 2.0 * 1.6 * spread  # at most 60 % wider than need be


def test_two_methods_on_the_same_clips() -> None:
    """Clips differ much, the methods by one: a difference is known far better than either number."""
    random = np.random.default_rng(3)
    hard = 10 * random.normal(size=(50, 1))
    ours, theirs = ({"ssim": hard + shift + 0.1 * random.normal(size=(50, 4))} for shift in (1, 0))
    found = difference(Ssim(), ours, theirs, draws=200)
    assert 0.9 < found.low < found.value < found.high < 1.1
    assert interval(Ssim(), ours, draws=200).low < interval(Ssim(), theirs, draws=200).high


def test_the_same_seed_gives_the_same_bounds() -> None:
    rows = {"ssim": np.random.default_rng(4).normal(size=(9, 2))}
    first, again, other = (interval(Ssim(), rows, draws=50, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_what_has_no_interval(unchecked_types: None) -> None:
    one = interval(Ssim(), {"ssim": np.ones((1, 3))})
    assert one.value == 1 and np.isnan([one.low, one.high]).all()
    none = interval(Ssim(), {"ssim": np.full((4, 3), np.nan)})
    assert np.isnan([none.value, none.low, none.high]).all()
    some = interval(Ssim(), {"ssim": np.array([[np.nan], [1.0], [3.0]])}, draws=300)
    assert some.value == 2 and some.low < 2 < some.high  # draws of the first clip alone are left out
    with pytest.raises(ValueError, match="at least 2 draws"):
        interval(Ssim(), {"ssim": np.ones((4, 3))}, draws=1)
    with pytest.raises(ValueError, match="of the same clips"):
        difference(Ssim(), {"ssim": np.ones((4, 3))}, {"ssim": np.ones((5, 3))})
