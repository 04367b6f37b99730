"""Opacity is recovered from frames over known backgrounds: from one nearly, from two exactly."""

from __future__ import annotations

import numpy as np
import pytest

from tests.io.drawn_cels import CELS, SIDE, blurred, disc, drawn_over, shadow
from tooncrafter_jax.io.backgrounds import colours_of, farthest_background
from tooncrafter_jax.io.mattes import drawn_colours, matte, matte_of_two
from tooncrafter_jax.io.transparency import over

BETWEEN = (0.2, 0.5, 0.8)


def error(found: np.ndarray, true: np.ndarray) -> float:
    """The mean absolute error of opacity, 0 to 1."""
    return float(np.abs(found[..., 3].astype(int) - true[..., 3]).mean() / 255)


def backgrounds(keys: list[np.ndarray]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    colours = np.concatenate([colours_of(key) for key in keys])
    first, _ = farthest_background(colours)
    return first, farthest_background(colours, apart_from=first)[0]


@pytest.mark.parametrize(
    ("name", "noise", "drift", "most"),
    [
        ("disc", 0, 0, 0.001),
        ("lines", 0, 0, 0.001),
        ("shadow", 0, 0, 0.004),
        ("disc", 3, 6, 0.002),
        ("lines", 3, 6, 0.007),
        ("shadow", 3, 6, 0.016),
    ],
)
def test_from_one_background(name: str, noise: float, drift: int, most: float):
    """With the noise and the drift of a decoder, too. The bounds are about twice what is measured."""
    keys = [CELS[name](0), CELS[name](1)]
    background, _ = backgrounds(keys)
    known = drawn_colours(keys)
    for at in BETWEEN:
        true = CELS[name](at)
        found = matte(drawn_over(true, background, noise, drift), background, known)
        assert error(found, true) < most, at


@pytest.mark.parametrize(("name", "most"), [("disc", 0.005), ("shadow", 0.012)])
def test_blurred_rims_take_no_background_along(name: str, most: float):
    """As wide as models draw them: over grey, rims are as the blurred cel's own."""
    keys = [CELS[name](0), CELS[name](1)]
    background, _ = backgrounds(keys)
    true = blurred(CELS[name](0.5), 2)
    found = matte(drawn_over(true, background, noise=2), background, drawn_colours(keys))
    assert error(found, true) < most
    rim = (true[..., 3] > 20) & (true[..., 3] < 250)
    away = (over(found, (128, 128, 128)).astype(int) - over(true, (128, 128, 128)))[rim]
    towards = np.array(background) - 128.0
    assert (away @ towards / np.linalg.norm(towards)).mean() < 2


def test_a_patch_of_background_in_a_wrong_shade_is_not_drawn():
    """As models draw over strong colours: a block of 24 pixels, of which the middle is far from any background."""
    keys = [disc(0), disc(1)]
    background, _ = backgrounds(keys)
    frame = over(disc(0.5), background).astype(float)
    frame[4:28, 60:84] += 0.25 * (np.array([200, 200, 200]) - frame[4:28, 60:84])
    found = matte(np.round(frame).astype(np.uint8), background, drawn_colours(keys))
    assert found[6:26, 62:82, 3].max() < 0.4 * 255


@pytest.mark.parametrize("name", CELS)
def test_from_two_backgrounds_it_is_exact(name: str):
    keys = [CELS[name](0), CELS[name](1)]
    first, second = backgrounds(keys)
    for at in BETWEEN:
        true = CELS[name](at)
        found = matte_of_two(over(true, first), over(true, second), first, second, drawn_colours(keys))
        # What is within 2 levels of the background counts as such, and below an opacity of 0.02 nothing is there.
        assert np.abs(found[..., 3].astype(int) - true[..., 3]).max() <= 12 and error(found, true) < 0.001


def test_where_the_second_drawing_is_another_the_first_counts():
    keys = [disc(0), disc(1)]
    first, second = backgrounds(keys)
    known = drawn_colours(keys)
    one, elsewhere = over(disc(0.5), first), over(disc(0.56), second)
    found = matte_of_two(one, elsewhere, first, second, known)
    assert error(found, disc(0.5)) < 0.004


@pytest.mark.parametrize("name", CELS)
def test_over_its_background_a_cel_shows_the_frame_again(name: str):
    keys = [CELS[name](0), CELS[name](1)]
    background, _ = backgrounds(keys)
    frame = over(CELS[name](0.5), background)
    found = matte(frame, background, drawn_colours(keys))
    assert np.abs(over(found, background).astype(int) - frame).mean() < 0.5


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), (120, 60, 200)])
def test_no_background_shows_at_the_rim(ground: tuple[int, int, int]):
    """Over any other colour a cel looks as the true one does."""
    keys = [disc(0), disc(1)]
    background, _ = backgrounds(keys)
    found = matte(over(disc(0.5), background), background, drawn_colours(keys))
    difference = np.abs(over(found, ground).astype(int) - over(disc(0.5), ground))
    assert difference.mean() < 0.6 and np.quantile(difference, 0.999) < 60


def test_what_lies_inside_is_opaque_and_a_shadow_is_not():
    keys = [shadow(0), shadow(1)]
    background, _ = backgrounds(keys)
    true = shadow(0.5)
    found = matte(over(true, background), background, drawn_colours(keys))
    assert (found[true[..., 3] == 255][:, 3] >= 250).mean() > 0.99
    faint = (true[..., 3] > 80) & (true[..., 3] < 150)
    assert np.abs(found[faint][:, 3].astype(int) - true[faint][:, 3]).mean() < 25
    assert np.abs(found[faint][:, :3].astype(int) - (15, 15, 40)).mean() < 40


def test_a_frame_without_background_is_opaque_and_one_without_drawing_empty():
    known = drawn_colours([disc(0), disc(1)])
    full = np.full((SIDE, SIDE, 3), (230, 60, 40), np.uint8)
    assert (matte(full, (0, 255, 0), known)[..., 3] == 255).all()
    np.testing.assert_array_equal(matte(full, (0, 255, 0), known)[..., :3], full)
    empty = np.full((SIDE, SIDE, 3), (0, 255, 0), np.uint8)
    assert (matte(empty, (0, 255, 0), known)[..., 3] == 0).all()


def test_a_drawing_that_is_half_transparent_throughout_is_found():
    keys = [np.dstack([disc(at)[..., :3], disc(at)[..., 3] // 2]) for at in (0, 0.5, 1)]
    background, _ = backgrounds([keys[0], keys[2]])
    found = matte(over(keys[1], background), background, drawn_colours([keys[0], keys[2]]))
    assert error(found, keys[1]) < 0.02
