"""PSNR is scikit-image's, down to one wrong pixel and up to the cap."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.reference import GOLDEN
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.evaluation.metrics.psnr import CAP, Psnr, psnr


def test_against_scikit_image() -> None:
    """Numbers of scikit-image 0.26.0, made by tests/golden/metrics/make_skimage.py; 5e-6 dB were seen, float32
    rounding.
    """
    rows = Psnr().measure(batch(changed_clips(), clips()))
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        np.testing.assert_allclose(rows["psnr"], theirs["psnr"], atol=2e-5, rtol=0)
        of_clips = [-10 * np.log10(np.mean(10 ** (-clip / 10))) for clip in theirs["psnr"]]
        assert Psnr().summarise(rows) == pytest.approx(np.mean(of_clips), abs=2e-5)


def test_a_clip_has_the_ratio_of_its_mean_error() -> None:
    """Two frames that were handed through hardly help, as they leave the error of the 14 others."""
    truth = np.full((1, 16, 8, 8, 3), 100, np.uint8)
    video = truth.copy()
    video[:, 1:-1] += 10
    rows = Psnr().measure(ClipBatch(video, truth, ("",)))
    assert Psnr().summarise(rows) == pytest.approx(10 * np.log10(255**2 / (100 * 14 / 16)), abs=1e-4)
    assert rows["psnr"].mean() > Psnr().summarise(rows) + 7


def test_one_wrong_pixel_of_a_large_picture_counts() -> None:
    picture = np.full((300, 500, 3), 200, np.uint8)
    other = picture.copy()
    other[299, 499, 2] = 0
    assert float(psnr(other, picture)) == pytest.approx(10 * np.log10(255**2 * 450_000 / 200**2), abs=2e-5)
    assert float(psnr(picture * 0, picture * 0 + 255)) == pytest.approx(0, abs=1e-5)


def test_the_cap() -> None:
    picture = np.zeros((300, 500, 3), np.uint8)
    other = picture.copy()
    other[0, 0, 0] = 1  # 104.7 dB
    assert float(psnr(picture, picture)) == float(psnr(other, picture)) == CAP
    other[:2, 0, 0] = 2
    assert float(psnr(other, picture)) == pytest.approx(95.63, abs=0.01)
