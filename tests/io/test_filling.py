"""Holes are filled from what is around them, and what is known stays."""

from __future__ import annotations

import numpy as np
import pytest

from tooncrafter_jax.io.filling import filled


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 5), (16, 16), (33, 64)])
def test_what_is_known_stays_and_holes_lie_between(height: int, width: int):
    rng = np.random.default_rng(0)
    values = rng.uniform(10, 20, (height, width, 3)).astype(np.float32)
    weights = (rng.random((height, width)) < 0.3).astype(np.float32)
    weights[0, 0] = 1
    result = filled(np.where(weights[..., None] > 0, values, 1e6).astype(np.float32), weights)
    np.testing.assert_allclose(result[weights == 1], values[weights == 1], rtol=1e-6)
    assert result.min() >= 10 - 1e-3 and result.max() <= 20 + 1e-3


def test_each_half_of_a_hole_is_like_its_own_side():
    values = np.zeros((32, 32, 1), np.float32)
    values[:, :8], values[:, -8:] = 5, 9
    weights = np.zeros((32, 32), np.float32)
    weights[:, :8] = weights[:, -8:] = 1
    middle = filled(values, weights)[16, :, 0]
    assert middle[8] == pytest.approx(5, abs=0.8) and middle[23] == pytest.approx(9, abs=0.8)
    assert (np.diff(middle) >= -1e-5).all()


def test_of_nothing_known_all_is_zero():
    assert (filled(np.ones((9, 9, 3), np.float32), np.zeros((9, 9), np.float32)) == 0).all()
