"""SSIM is scikit-image's with the paper's window."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.reference import GOLDEN
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.ssim import C1, Ssim, SsimGrey, ssim, ssim_grey
from tooncrafter_jax.io.sketches import grey_of_rgb


def test_against_scikit_image() -> None:
    """Numbers of scikit-image 0.26.0, made by tests/golden/metrics/make_skimage.py; 2e-7 were seen, float32
    rounding.
    """
    rows = Ssim().measure(batch(changed_clips(), clips()))
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        np.testing.assert_allclose(rows["ssim"], theirs["ssim"], atol=2e-6, rtol=0)
        assert Ssim().summarise(rows) == pytest.approx(theirs["ssim"].mean(), abs=2e-6)


def test_grey_against_scikit_image() -> None:
    """Its defaults on the luma, from the same script."""
    rows = SsimGrey().measure(batch(changed_clips(), clips()))
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        np.testing.assert_allclose(rows["ssim_grey"], theirs["ssim_grey"], atol=2e-6, rtol=0)


def test_grey_is_that_of_sketches() -> None:
    """Pictures of the same luma are equal, whatever their colours."""
    picture = clips()[0, 0]
    grey = np.repeat(grey_of_rgb(picture)[..., None], 3, axis=-1)
    assert float(ssim_grey(picture, grey)) == pytest.approx(1, abs=1e-6)


def test_equal_pictures_have_one_and_both_ways_are_the_same() -> None:
    assert np.abs(np.asarray(ssim(clips(), clips())) - 1).max() < 1e-6
    there, back = ssim(changed_clips(), clips()), ssim(clips(), changed_clips())
    np.testing.assert_allclose(there, back, atol=1e-6)


def test_flat_pictures_by_hand() -> None:
    """Without variance only the luminance term is left; rounding must not pass for variance."""
    dark, light = np.full((12, 13, 3), 60, np.uint8), np.full((12, 13, 3), 240, np.uint8)
    expected = (2 * 60 * 240 + C1) / (60**2 + 240**2 + C1)
    assert float(ssim(dark, light)) == pytest.approx(expected, abs=1e-4)


def test_frames_smaller_than_the_window() -> None:
    small = clips(1, 1, 10, 40)
    with pytest.raises(UserError, match="at least 11x11 pixels, not 10x40"):
        Ssim().measure(batch(small, small))
