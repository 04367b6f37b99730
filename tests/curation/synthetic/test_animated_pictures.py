"""Animated pictures: rate, held drawings, and drawings that run over the border."""

import numpy as np
import pytest
from PIL import Image

from tests.curation.synthetic.emoji_files import write_emoji
from tooncrafter_jax.curation.synthetic.animated_pictures import (
    Animation,
    first_frames,
    longest_whole_run,
    read_animation,
)
from tooncrafter_jax.errors import UserError


@pytest.mark.parametrize(("milliseconds", "fps"), [(42, 24), (41, 24), (40, 25), (33, 30), (83, 12), (100, 10)])
def test_rate(tmp_path, milliseconds, fps):
    write_emoji(tmp_path / "a.webp", frames=3, milliseconds=milliseconds)
    animation = read_animation(tmp_path / "a.webp")
    assert (animation.fps, len(animation.frames), animation.effective_fps) == (fps, 3, fps)


def test_held_frames_are_repeated_and_counted_once(tmp_path):
    write_emoji(tmp_path / "a.webp", frames=4, milliseconds=[42, 126, 42, 45])
    animation = read_animation(tmp_path / "a.webp")
    assert len(animation.frames) == 6
    np.testing.assert_array_equal(animation.frames[1], animation.frames[3])
    assert animation.effective_fps == pytest.approx(24 * 4 / 6)


def test_colour_is_multiplied_by_opacity(tmp_path):
    write_emoji(tmp_path / "a.webp", frames=2)
    frames = read_animation(tmp_path / "a.webp").frames
    edges = (frames[..., 3] > 0) & (frames[..., 3] < 255)
    assert edges.any() and (frames[..., :3].max(-1) <= frames[..., 3]).all()


def test_frames_over_the_border_are_left_out(tmp_path):
    write_emoji(tmp_path / "a.webp", frames=30, shape="leaving")
    animation = read_animation(tmp_path / "a.webp")
    whole = longest_whole_run(animation)
    assert 5 < len(whole.frames) < 25 and whole.start == 0
    assert (whole.frames[:, :, -1, 3] >= 48).sum(axis=1).max() <= 8
    later = longest_whole_run(Animation(animation.frames[::-1], 24.0, 30))
    assert len(later.frames) == len(whole.frames) and later.start == 30 - len(whole.frames)


def test_whole_animations_stay(tmp_path):
    write_emoji(tmp_path / "a.webp")
    animation = read_animation(tmp_path / "a.webp")
    assert longest_whole_run(animation) is animation and first_frames(animation, 20) is animation
    assert len(first_frames(animation, 7).frames) == 7


def test_an_animation_that_is_always_cut_has_no_run():
    assert len(longest_whole_run(Animation(np.full((3, 12, 12, 4), 255, np.uint8), 24.0, 1)).frames) == 0


def test_box_and_flat_bottom(tmp_path):
    write_emoji(tmp_path / "bust.webp", shape="bust")
    write_emoji(tmp_path / "ball.webp")
    bust, ball = read_animation(tmp_path / "bust.webp"), read_animation(tmp_path / "ball.webp")
    assert bust.has_flat_bottom() and not ball.has_flat_bottom()
    assert bust.box() == pytest.approx((9, 7, 38, 46), abs=1)
    assert Animation(np.zeros((2, 5, 7, 4), np.uint8), 24.0, 1).box() == (0, 0, 7, 5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"RIFF\0\0", "does not contain a picture that can be read"),
        (slice(900), "does not contain a picture|is damaged or cut short"),
    ],
)
def test_what_is_wrong_with_a_file_is_reported(tmp_path, content, reason):
    if isinstance(content, slice):
        write_emoji(tmp_path / "whole.webp")
        content = (tmp_path / "whole.webp").read_bytes()[content]
    if content is not None:
        (tmp_path / "a.webp").write_bytes(content)
    with pytest.raises(UserError, match=f"a.webp' ({reason})"):
        read_animation(tmp_path / "a.webp")


def test_a_still_picture_is_one_frame(tmp_path):
    Image.new("RGB", (6, 4), (9, 8, 7)).save(tmp_path / "a.png")
    animation = read_animation(tmp_path / "a.png")
    assert animation.frames.shape == (1, 4, 6, 4) and animation.frames[0, 0, 0].tolist() == [9, 8, 7, 255]
