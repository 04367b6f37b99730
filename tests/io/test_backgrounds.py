"""Backgrounds for cels: far from the drawing, and named as anybody would."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.backgrounds import colour_named, colours_of, farthest_background, hex_of, nearness


def test_the_background_is_far_from_every_colour_of_the_drawing_and_moderate():
    colours = np.array([(0, 255, 0), (20, 20, 20), (255, 255, 255), (250, 220, 180)], np.uint8)
    background, distance = farthest_background(colours)
    assert distance == pytest.approx(nearness(colours, background)) and distance > 70
    assert max(background) <= 243 and min(background) >= 45


def test_where_no_moderate_one_is_far_enough_all_colours_are_looked_through():
    """A drawing in all moderate tones, as pictures have: only a strong colour is left."""
    hues, tones = np.linspace(0, 1, 25), [(0.4, 0.65), (0.4, 0.95), (0.7, 0.8), (0.2, 0.8), (0.55, 0.95), (0.6, 0.5)]
    all_of_them = [colorsys.hsv_to_rgb(hue, *tone) for hue in hues for tone in tones]
    background, distance = farthest_background(np.round(255 * np.array(all_of_them)).astype(np.uint8))
    assert max(background) == 255 and min(background) == 0 and distance > 40


def test_a_second_background_is_far_from_the_first_too():
    colours = np.array([(230, 60, 40), (20, 20, 20)], np.uint8)
    first, _ = farthest_background(colours)
    second, distance = farthest_background(colours, apart_from=first)
    assert nearness(np.array([first], np.uint8), second) >= distance > 60


def test_a_drawing_of_all_colours_leaves_none_that_is_far():
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    assert farthest_background(colours)[1] < 8


def test_colours_of_what_is_hardly_there_do_not_count():
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:2], picture[2:4] = (200, 0, 0, 255), (0, 200, 0, 10)
    assert colours_of(picture).tolist() == [[202, 2, 2]]


@pytest.mark.parametrize(
    ("text", "colour"),
    [("green", (0, 128, 0)), ("#0f0", (0, 255, 0)), (" #00ff80 ", (0, 255, 128)), ("rgb(1, 2, 3)", (1, 2, 3))],
)
def test_colours_have_names(text: str, colour: tuple[int, int, int]):
    assert colour_named(text) == colour and colour_named(hex_of(colour)) == colour


@pytest.mark.parametrize(
    ("text", "words"), [("grün", "'grün' is no colour"), ("#00ff0080", "is not opaque"), ("", "no")]
)
def test_what_is_no_colour_is_named(text: str, words: str):
    with pytest.raises(UserError, match=words):
        colour_named(text)


def test_where_no_moderate_colour_is_far_enough_the_farthest_of_all_is_taken():
    """A drawing of all strong colours: a moderate one is nearer than one would like, and still the farthest."""
    steps = np.array((0, 64, 128, 192, 255), np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    chosen, distance = farthest_background(colours)
    assert distance == pytest.approx(nearness(colours, chosen)) and distance > 8
