"""Colours in CIE L*a*b* are scikit-image's."""

from __future__ import annotations

import numpy as np

from tests.evaluation.metrics.clips import changed_clips
from tests.reference import GOLDEN
from tooncrafter_jax.evaluation.metrics.cielab import lab, mean_lab


def test_means_against_scikit_image() -> None:
    """Numbers of scikit-image 0.26.0, made by tests/golden/metrics/make_skimage.py; 1e-5 was seen, of 100."""
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        np.testing.assert_allclose(mean_lab(changed_clips()), theirs["mean_lab"], atol=5e-5, rtol=0)


def test_greys_and_primaries() -> None:
    """Greys have no colour; the L*a*b* of the sRGB primaries under D65 is in every table, to two decimals."""
    colours = np.array([[[0, 0, 0], [255, 255, 255], [119, 119, 119], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    expected = [
        (0, 0, 0),
        (100, 0, 0),
        (50.03, 0, 0),
        (53.24, 80.09, 67.20),
        (87.73, -86.18, 83.18),
        (32.30, 79.19, -107.86),
    ]
    np.testing.assert_allclose(np.asarray(lab(colours))[0], expected, atol=0.02)
