"""Pixels as the networks take them."""

import jax
import numpy as np

from tooncrafter_jax.nn.pixels import to_pixels


def test_pixels_span_minus_one_to_one():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    pixels = to_pixels(levels)
    assert (pixels.min(), pixels.max(), pixels.dtype) == (-1, 1, np.float32)
    np.testing.assert_allclose(pixels, levels / 255 * 2 - 1, atol=1e-7)
    np.testing.assert_allclose(jax.jit(to_pixels)(levels), pixels, atol=1e-7)
