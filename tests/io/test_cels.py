"""Key frames with opacity stay as they are and lie over a background that is far from them; bad ones are named."""

from __future__ import annotations

import numpy as np
import pytest

from tests.io.drawn_cels import SIDE, disc, shadow
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.backgrounds import colours_of, nearness
from tooncrafter_jax.io.cels import CelKeys, cel_keys
from tooncrafter_jax.io.transparency import over
from tooncrafter_jax.notes import collected

NAMES = ("'a.png'", "'b.png'")


def keys_of(first: np.ndarray, last: np.ndarray, **options: object) -> CelKeys:
    return cel_keys([first, last], NAMES, SIDE, SIDE, **options)  # pyright: ignore[reportArgumentType]


def test_keys_come_back_bit_by_bit_and_frames_between_nearly():
    rng = np.random.default_rng(0)
    first, last = shadow(0), shadow(1).copy()
    last[last[..., 3] == 0] = rng.integers(0, 256, ((last[..., 3] == 0).sum(), 4)) * (1, 1, 1, 0)  # below transparency
    with collected() as said:
        keys = keys_of(first, last)
    assert len(said) == 1 and "are drawn over #" in said[0] and "taken off it again" in said[0]
    frames = np.stack([over(shadow(at), keys.background) for at in (0, 0.5, 1)])
    cels = keys.recovered(frames)
    np.testing.assert_array_equal(cels[0], first)
    np.testing.assert_array_equal(cels[-1], last)
    assert np.abs(cels[1][..., 3].astype(int) - shadow(0.5)[..., 3]).mean() / 255 < 0.004


def test_over_two_backgrounds_both_are_far():
    keys = keys_of(disc(0), disc(1), two_backgrounds=True)
    assert keys.second is not None
    for background in (keys.background, keys.second):
        assert nearness(colours_of(disc(0)), background) > 60
    assert nearness(np.array([keys.background], np.uint8), keys.second) > 60
    both = [np.stack([over(disc(at), colour) for at in (0, 0.5, 1)]) for colour in (keys.background, keys.second)]
    assert np.abs(keys.recovered(both[0], both[1])[1][..., 3].astype(int) - disc(0.5)[..., 3]).max() <= 12


def test_ends_lie_over_the_background_in_range():
    keys = keys_of(disc(0), disc(1), background="#00ff00")
    ends = keys.over(keys.background)
    assert ends.shape == (2, SIDE, SIDE, 3) and ends.dtype == np.float32
    np.testing.assert_allclose(ends[0, 0, 0], (-1, 1, -1))
    assert ends.min() >= -1 and ends.max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pictures_of_another_size_are_fitted_and_padded_with_nothing(fit: str):
    wide = disc(0)[20:76]
    keys = cel_keys([wide, wide], NAMES, 64, 64, fit=fit)
    assert keys.pictures[0].shape == (64, 64, 4)
    # Colours are multiplied by opacity while they are resized: no dark rim of the transparent black.
    visible = keys.pictures[0][..., 3] > 40
    assert keys.pictures[0][visible][:, 0].min() >= 20


def test_where_every_colour_is_used_a_note_says_so():
    steps = np.arange(0, 256, 32, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    picture = np.zeros((SIDE, SIDE, 4), np.uint8)
    picture.reshape(-1, 4)[: len(colours)] = np.concatenate([colours, np.full((len(colours), 1), 255)], axis=1)
    with collected() as said:
        keys_of(picture, picture)
    assert any("so many colours that the farthest background" in sentence for sentence in said)


def opaque(at: float) -> np.ndarray:
    return np.dstack([over(disc(at), (255, 255, 255)), np.full((SIDE, SIDE), 255, np.uint8)])


def faint() -> np.ndarray:
    picture = disc(0).copy()
    picture[..., 3] = np.minimum(picture[..., 3], 4)
    return picture


@pytest.mark.parametrize(
    ("first", "last", "options", "words"),
    [
        (opaque(0), disc(1), {}, "'a.png' has no transparent pixels, so there is no opacity to keep"),
        (disc(0), opaque(1), {}, "'b.png' has no transparent pixels"),
        (disc(0), over(disc(1), (255, 255, 255)), {}, "'b.png' has no transparent pixels"),
        (disc(0), np.zeros_like(disc(0)), {}, "'b.png' is transparent everywhere: there is nothing to draw from"),
        (faint(), disc(1), {}, "'a.png' is transparent everywhere"),
        (disc(0), disc(1), {"background": "#e63c28"}, "#e63c28 is a colour of the drawing .* choose auto, or #"),
        (disc(0), disc(1), {"background": "white"}, "#ffffff is a colour of the drawing"),
        (disc(0), disc(1), {"background": "grün"}, "'grün' is no colour"),
        (disc(0), disc(1), {"fit": "stretch"}, "fit is 'stretch'"),
    ],
    ids="opaque-first opaque-last no-channel empty faint its-colour its-spot no-colour no-fit".split(),
)
def test_what_is_no_cel_is_named(first: np.ndarray, last: np.ndarray, options: dict[str, str], words: str):
    with pytest.raises(UserError, match=words):
        keys_of(first, last, **options)


def test_a_drawing_that_vanishes_when_it_is_made_small_is_named():
    picture = np.zeros((SIDE * 4, SIDE * 4, 4), np.uint8)
    picture[200, 200] = 255
    with pytest.raises(UserError, match="'a.png' has nothing but transparency at 96 x 96 pixels"):
        keys_of(picture, disc(1))
