"""L*a*b* is that of the standard, and comes back to every level."""

from __future__ import annotations

import numpy as np

from tooncrafter_jax.evaluation.metrics.cielab import lab
from tooncrafter_jax.io.cielab import lab_of_srgb, srgb_of_lab


def colours() -> np.ndarray:
    steps = np.array([*range(0, 256, 17), 1, 2, 9, 10, 11, 254], np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)


def test_it_is_what_the_metrics_measure_with():
    np.testing.assert_allclose(lab_of_srgb(colours()), np.asarray(lab(colours()[None, None]))[0, 0], atol=2e-3)
    np.testing.assert_allclose(lab_of_srgb(colours().astype(np.float32)), lab_of_srgb(colours()), atol=1e-3)


def test_white_black_and_red():
    found = lab_of_srgb(np.array([(255, 255, 255), (0, 0, 0), (255, 0, 0)], np.uint8))
    np.testing.assert_allclose(found, [(100, 0, 0), (0, 0, 0), (53.24, 80.09, 67.20)], atol=0.02)


def test_every_level_comes_back():
    np.testing.assert_array_equal(srgb_of_lab(lab_of_srgb(colours())), colours())


def test_what_no_screen_shows_is_clipped():
    assert srgb_of_lab(np.array([[120, 0, 0], [-5, 0, 0]], np.float32)).tolist() == [[255] * 3, [0] * 3]
