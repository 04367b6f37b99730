"""Moving along the flow follows motion, fills what is uncovered, and treats both ends alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.evaluation.rivals.scenes import check_ends_batch_and_sizes, psnr, request, reverse, sliding_square
from tooncrafter_jax.evaluation.rivals.blends import CrossFade
from tooncrafter_jax.evaluation.rivals.flow_warp import FlowWarp, brightness_constancy, merge
from tooncrafter_jax.evaluation.rivals.splatting import splat

pytest.importorskip("cv2", reason="needs the extra 'data'")

RIGHT = 15
"""Pixels that the square of `sliding_square` moves."""


@dataclass(frozen=True)
class KnownFlow:
    """The true flow of `sliding_square`: that of the ground is 0."""

    name = "known"

    def __call__(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        left = 30 if np.array_equal(before, sliding_square()[0]) else 30 + RIGHT
        flow = np.zeros((*before.shape[:2], 2), np.float32)
        flow[30 : 30 + 32, left : left + 32, 0] = RIGHT if left == 30 else -RIGHT
        return flow

    def settings(self) -> Mapping[str, Any]:
        return {}


def test_the_true_flow_gives_the_true_frames() -> None:
    """The ground under the square's old place is only in the last picture, that under its new place only in the
    first.
    """
    truth = sliding_square()
    video = FlowWarp(KnownFlow())([request(truth)])[0]
    for index in range(1, 15):
        assert psnr(video[index], truth[index]) > 40, index
        uncovered = (slice(30, 62), slice(30, 30 + index))
        assert psnr(video[index][uncovered], truth[index][uncovered]) > 35, index


def test_the_middle_frame_beats_a_cross_fade() -> None:
    truth = sliding_square()
    ours, blend = (psnr(rival([request(truth)])[0, 8], truth[8]) for rival in (FlowWarp(), CrossFade()))
    assert ours > blend + 5, (ours, blend)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (71, 93)])
def test_ends_batch_and_sizes(height: int, width: int) -> None:
    check_ends_batch_and_sizes(FlowWarp(), height, width)


def test_a_picture_smaller_than_a_patch_of_the_flow() -> None:
    video = FlowWarp()([request(sliding_square()[:, 40:48, 40:49])])[0]
    assert video.shape == (16, 8, 9, 3)


def test_backwards_is_the_reverse() -> None:
    """But for the order of two terms of a sum, which can move a value across the edge of rounding."""
    clip = sliding_square()
    there, back = FlowWarp()([request(clip)])[0], FlowWarp()([reverse(clip)])[0, ::-1]
    difference = np.abs(there.astype(int) - back)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_what_stands_still_stays() -> None:
    picture = sliding_square()[0]
    video = FlowWarp()([request(np.repeat(picture[None], 7, axis=0))])[0]
    np.testing.assert_array_equal(video, np.repeat(picture[None], 7, axis=0))


class TestMerging:
    """Of single pixels: red comes from the first picture, green from the last, and the blend is blue."""

    RED, GREEN, BLUE = (np.eye(3, dtype=np.float32)[i].reshape(1, 1, 3) for i in range(3))

    def merged(self, importance: tuple[float, float], away: tuple[bool, bool], time: float) -> list[float]:
        arrived = [
            splat(colour, np.full((1, 1), value, np.float32), np.full((1, 1, 2), 9.0 * gone, np.float32))
            for colour, value, gone in zip((self.RED, self.GREEN), importance, away, strict=True)
        ]
        return merge(arrived[0], arrived[1], self.BLUE.astype(np.float64), time)[0, 0].tolist()

    def test_by_nearness_in_time(self) -> None:
        assert self.merged((1, 1), (False, False), 0.25) == pytest.approx([0.75, 0.25, 0], abs=1e-6)

    def test_by_importance(self) -> None:
        assert self.merged((1, 0.25), (False, False), 0.5) == pytest.approx([0.8, 0.2, 0], abs=1e-6)

    def test_a_hole_shows_the_other_picture_even_if_nothing_confirms_it(self) -> None:
        assert self.merged((1, 1e-4), (True, False), 0.1) == pytest.approx([0, 1, 0], abs=0.02)

    def test_a_hole_in_both_shows_the_blend(self) -> None:
        assert self.merged((1, 1), (True, True), 0.5) == pytest.approx([0, 0, 1])


def test_importance_is_one_where_the_colour_is_found_again() -> None:
    truth = sliding_square().astype(np.float32) / 255
    flow = KnownFlow()(sliding_square()[0], sliding_square()[-1])
    found = brightness_constancy(truth[0], truth[-1], flow, 20.0)
    assert (found[30:62, 30:62] == 1).all() and found[0, 0] == 1
    assert found[32:60, 64:76].mean() < 0.1  # ground that the square covers in the end


def test_settings_name_the_flow() -> None:
    assert FlowWarp().settings() == {"flow": "dis", "preset": "medium", "strictness": 20.0}
