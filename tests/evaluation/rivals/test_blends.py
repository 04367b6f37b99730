"""Rivals without motion are exactly their formulas; and what all rivals refuse."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.rivals.scenes import FRAMES, request, reverse, sliding_square
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.blends import CrossFade, Still
from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest, InBetweener


def pictures(*values: int) -> list[np.ndarray]:
    return [np.full((8, 8, 3), value, np.uint8) for value in values]


def test_a_cross_fade_rounds_halves_upwards() -> None:
    video = CrossFade()([ClipRequest("a", *pictures(10, 13), frames=5)])[0]
    assert video[:, 0, 0, 0].tolist() == [10, 11, 12, 12, 13]  # 10.75, 11.5, 12.25
    assert CrossFade()([ClipRequest("a", *pictures(255, 0), frames=3)])[0, :, 3, 3, 1].tolist() == [255, 128, 0]


def test_a_cross_fade_is_linear_in_time_and_colour() -> None:
    clip = sliding_square(65, 79)
    clip = np.concatenate([clip, clip])[:17]
    video = CrossFade()([request(clip)])[0]
    weight = (np.arange(17) / 16)[:, None, None, None]
    exact = (1 - weight) * clip[0] + weight * clip[-1]
    np.testing.assert_array_equal(video, np.floor(exact + 0.5).astype(np.uint8))  # sixteenths are exact
    np.testing.assert_array_equal(video, CrossFade()([reverse(clip)])[0, ::-1])


def test_still_holds_the_first_picture_to_the_end() -> None:
    first, last = sliding_square()[0], sliding_square()[-1]
    video = Still()([ClipRequest("a", first, last), ClipRequest("b", last, first)])
    assert video.shape == (2, FRAMES, *first.shape)
    assert (video[0] == first).all() and (video[1] == last).all()


@pytest.mark.parametrize("rival", [CrossFade(), Still()], ids=lambda rival: rival.name)
class TestRequests:
    def test_sizes_must_agree(self, rival: InBetweener) -> None:
        small, large = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)
        with pytest.raises(UserError, match=r"clip 'b' is 10 x 8 pixels, but that of 'a' 9 x 8"):
            rival([ClipRequest("a", small, small), ClipRequest("b", small, large)])

    def test_lengths_must_agree(self, rival: InBetweener) -> None:
        first, last = pictures(0, 1)
        with pytest.raises(UserError, match="clip 'b' has 7 frames, but 'a' 16"):
            rival([ClipRequest("a", first, last), ClipRequest("b", first, last, 7)])

    def test_a_clip_has_two_ends(self, rival: InBetweener) -> None:
        with pytest.raises(UserError, match="clip 'a' has 1 frames: it needs at least its two end frames"):
            rival([ClipRequest("a", *pictures(0, 1), frames=1)])
        assert rival([ClipRequest("a", *pictures(0, 0), frames=2)]).shape[1] == 2
