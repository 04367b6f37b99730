"""A training clip's sketches reach the encoder as a user's sketches do."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.sampling.request import Pair, SamplingOptions, prepare
from tooncrafter_jax.sketches import hints_of_sketches


def drawn() -> np.ndarray:
    """Three sketches of 64 x 64 in 8 bits: white paper with a black stroke somewhere else in each."""
    sketches = np.full((3, 64, 64, 1), 255, np.uint8)
    for frame in range(3):
        sketches[frame, 10 * frame + 5 : 10 * frame + 8, 8:40] = 20 * frame
    return sketches


def test_lines_become_bright_and_paper_and_unguided_frames_black() -> None:
    hints = hints_of_sketches(drawn(), np.asarray([True, False, True]))
    assert hints.shape == (3, 64, 64, 1) and hints.dtype == np.float32
    np.testing.assert_allclose(hints[0], (255 - drawn()[0]) / np.float32(255), atol=1e-6)
    np.testing.assert_allclose(hints[2], (255 - drawn()[2]) / np.float32(255), atol=1e-6)
    assert not hints[1].any()
    assert not hints[0, 20:].any() and hints[0, 6, 20] == 1


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_extracted_sketches_are_rounded_to_8_bits(as_array) -> None:
    exact = drawn().astype(np.float32) / 255
    almost = as_array(np.clip(exact + np.float32(0.4 / 255), 0, 1).astype(np.float32))
    everywhere = np.ones(3, np.bool_)
    np.testing.assert_array_equal(hints_of_sketches(almost, everywhere), hints_of_sketches(drawn(), everywhere))


def test_a_users_sketches_give_the_same_hints(tiny_config) -> None:
    options = SamplingOptions(frames=3, height=64, width=64)
    colour = [np.repeat(sketch, 3, axis=-1) for sketch in drawn()]
    picture = np.full((64, 64, 3), 200, np.uint8)
    request = prepare(Pair(picture, picture, sketches={0: colour[0], 2: colour[2]}), options, tiny_config)
    np.testing.assert_array_equal(hints_of_sketches(drawn(), np.asarray([True, False, True])), request.hints)
