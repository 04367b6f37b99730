"""Sinusoids of times and frame rates."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import golden
from tooncrafter_jax.nn.embeddings import sinusoidal_embedding


@pytest.mark.parametrize("features", [64, 320, 33])
def test_equal_to_the_reference(features: int) -> None:
    """The reference's own float32 angles of up to 999 radians are rounded by 3e-5, and its frequencies by one ulp."""
    arrays = golden("timestep_embedding")
    ours = sinusoidal_embedding(jnp.asarray(arrays["timesteps"], jnp.int32), features)
    np.testing.assert_allclose(ours, arrays[f"dim{features}"], atol=7e-5)


def test_cosine_comes_first() -> None:
    ours = np.asarray(sinusoidal_embedding(jnp.asarray([3.0]), 4))[0]
    frequencies = [1.0, 10_000**-0.5]
    expected = [np.cos(3 * f) for f in frequencies] + [np.sin(3 * f) for f in frequencies]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_an_odd_width_ends_in_zeros() -> None:
    ours = np.asarray(sinusoidal_embedding(jnp.asarray([1, 500]), 33))
    assert ours.shape == (2, 33)
    assert (ours[:, -1] == 0).all() and (ours[:, :-1] != 0).all()
