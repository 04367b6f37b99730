"""Flicker is the change of lightness beyond the truth's."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.evaluation.metrics.test_colour_drift import grey_clip
from tests.reference import GOLDEN
from tooncrafter_jax.evaluation.metrics.flicker import Flicker


def test_only_what_is_beyond_the_truth() -> None:
    """Bytes meet a lightness to 0.25, so that a change is met to 0.5."""
    truth = grey_clip(30, 40, 40, 60)
    same, still, flickering = truth, grey_clip(50, 50, 50, 50), grey_clip(30, 35, 30, 55)
    rows = Flicker().measure(batch(np.concatenate([same, still, flickering]), np.concatenate([truth] * 3)))
    np.testing.assert_allclose(rows["flicker"], [[0, 0, 0], [0, 0, 0], [0, 5, 5]], atol=1)
    assert (rows["flicker"][:2] == 0).all()
    means = Flicker().by_frame(rows)
    assert means is not None and means.shape == (4,) and np.isnan(means[0])
    np.testing.assert_allclose(means[1:], [0, 5 / 3, 5 / 3], atol=0.4)


def test_against_scikit_image() -> None:
    """From the stored lightness of scikit-image (make_skimage.py); the truth stands still."""
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        expected = np.abs(np.diff(theirs["mean_lab"][..., 0], axis=1))
    rows = Flicker().measure(batch(changed_clips(), np.repeat(clips()[:, :1], 3, 1)))
    np.testing.assert_allclose(rows["flicker"], expected, atol=5e-5)
    assert Flicker().summarise(rows) == pytest.approx(expected.mean(), abs=5e-5)
    assert expected.max() > 1
