"""RIFE as a rival: any size, any time, both ends exact, and a sentence where its weights are missing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.rivals.scenes import check_ends_batch_and_sizes, psnr, request, reverse, sliding_square
from tests.zoo.rife_inputs import disc
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.blends import CrossFade
from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest
from tooncrafter_jax.evaluation.rivals.rife import Rife

pytestmark = pytest.mark.heavy


@cache
def rife(weights: Path) -> Rife:
    """One for all tests: they draw at two padded sizes."""
    return Rife(weights)


@pytest.mark.gate
def test_every_frame_beats_a_cross_fade(metric_weights: Path) -> None:
    truth = sliding_square()
    ours, blend = (rival([request(truth)])[0] for rival in (rife(metric_weights), CrossFade()))
    for index in range(2, 14):
        assert psnr(ours[index], truth[index]) > psnr(blend[index], truth[index]) + 5, index


def test_frames_are_at_their_own_times(metric_weights: Path) -> None:
    """A disc that moves evenly by 20 pixels: each frame shows it further on, and nearly where it is then."""
    fine = np.stack([np.round(255 * disc(0.5 * index / 60, 96, 128)).astype(np.uint8) for index in range(61)])
    video = rife(metric_weights)([request(fine[::4])])[0]
    found = np.asarray([np.argmax([psnr(frame, true) for true in fine]) / 4 for frame in video[1:-1]])
    assert (np.diff(found) > 0).all() and np.abs(found - np.arange(1, 15)).max() < 1.5, found


@pytest.mark.gate
def test_ends_batch_and_odd_sizes(metric_weights: Path) -> None:
    check_ends_batch_and_sizes(rife(metric_weights), 95, 127)


def test_backwards_is_nearly_the_reverse(metric_weights: Path) -> None:
    """The network is not symmetric, but was trained on clips in both directions."""
    clip = sliding_square()
    there, back = (rife(metric_weights)([one])[0] for one in (request(clip), reverse(clip)))
    assert psnr(there[1:-1], back[::-1][1:-1]) > 35
    assert psnr(there[1:-1], back[1:-1]) < 28


def test_two_frames_are_the_pictures(metric_weights: Path) -> None:
    first, last = sliding_square()[[0, -1]]
    np.testing.assert_array_equal(rife(metric_weights)([ClipRequest("a", first, last, 2)])[0], np.stack([first, last]))


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"RIFE needs its weights, but .*rife_v4.safetensors is not there: run tooncrafter fetch-metric-weights",
    ):
        Rife(tmp_path).require(["a"])
