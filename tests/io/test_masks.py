"""Masks grow by rows and columns, up to the border."""

from __future__ import annotations

import numpy as np
import pytest

from tooncrafter_jax.io.masks import grown


@pytest.mark.parametrize("pixels", [0, 1, 3, 50])
def test_a_mask_grows_to_all_within_reach(pixels: int):
    mask = np.random.default_rng(0).random((13, 9)) < 0.04
    rows, columns = np.nonzero(mask)
    y, x = np.mgrid[0:13, 0:9]
    away = np.maximum(abs(y[..., None] - rows), abs(x[..., None] - columns)).min(-1)
    np.testing.assert_array_equal(grown(mask, pixels), away <= pixels)


def test_nothing_grows_to_nothing():
    assert not grown(np.zeros((4, 4), bool), 2).any()
