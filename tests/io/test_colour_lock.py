"""A drift of colours is taken out; edges, motion, fades and keys stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from tests.io.drifting import FRAMES, clip, difference, drifted, scene
from tooncrafter_jax.evaluation.metrics.ssim import ssim
from tooncrafter_jax.io.cielab import lab_of_srgb
from tooncrafter_jax.io.colour_lock import locked_colours


def edges(frames: np.ndarray) -> np.ndarray:
    """Steps of lightness from pixel to pixel, by columns and rows, as pictures."""
    lightness = lab_of_srgb(frames)[..., 0]
    steps = [np.abs(np.diff(lightness, axis=axis, append=np.take(lightness, [-1], axis))) for axis in (1, 2)]
    return np.repeat(np.clip(2.5 * np.maximum(*steps), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.mark.parametrize("fade", [0, 0.5])
def test_a_drift_is_taken_out_while_something_large_moves(fade: float):
    """The drift is up to 9 in L*a*b*; measured after: 0.4 at most, and 0.8 while the whole picture grows darker."""
    true = clip(fade)
    drawn = drifted(true)
    found = locked_colours(drawn, true[0], true[-1])
    before, after = (difference(frames, true).mean((1, 2)) for frames in (drawn, found))
    assert before.max() > 7 and after.max() < 1


def test_edges_and_the_moving_ball_stay():
    true = clip()
    drawn = drifted(true)
    found = locked_colours(drawn, true[0], true[-1])
    assert float(np.asarray(ssim(edges(found), edges(true))).min()) > 0.97
    ball = difference(found, true)[4][45:75, 55:85]
    assert ball.mean() < 1.5  # as what lies around it: the ball itself is in neither key there


def test_noise_is_no_drift():
    true = clip()
    drawn = drifted(true, noise=2)
    found = locked_colours(drawn, true[0], true[-1])
    alone = np.round(difference(drifted(true, noise=2), drifted(true)).mean(), 1)
    assert abs(difference(found, true).mean() - alone) < 0.3


@pytest.mark.parametrize("shift", [0, 6])
def test_a_clip_without_drift_stays_as_it_is(shift: int):
    """With a ball that crosses, and where the camera pans."""
    true = clip() if not shift else np.stack([np.roll(scene(0.5), shift * index, 1) for index in range(FRAMES)])
    found = locked_colours(true, true[0], true[-1])
    assert difference(found, true).mean((1, 2)).max() < 0.05


def test_keys_that_were_drawn_exactly_stay_bit_by_bit():
    true = clip()
    drawn = drifted(true)
    drawn[0], drawn[-1] = true[0], true[-1]
    found = locked_colours(drawn, true[0], true[-1])
    np.testing.assert_array_equal(found[[0, -1]], true[[0, -1]])


def test_something_large_that_passes_takes_no_colours_along():
    """A frame most of which is covered by what neither key has."""
    true = clip().copy()
    true[3:6, :, :100] = (30, 30, 40)
    found = locked_colours(true, true[0], true[-1])
    assert difference(found, true).mean((1, 2)).max() < 0.5


def test_where_everything_moves_nothing_is_done():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 40, 56, 3)).astype(np.uint8)
    assert difference(locked_colours(frames, frames[0], frames[-1]), frames).mean() < 1.5


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 31), (50, 16)])
def test_sizes_need_not_fit_to_cells(height: int, width: int):
    true = np.full((3, height, width, 3), 100, np.uint8)
    drawn = true.copy()
    drawn[1] += 9
    assert difference(locked_colours(drawn, true[0], true[-1]), true).max() < 0.6
