"""Flat areas take the keys' colours; lines, shading and keys stay as they are."""

from __future__ import annotations

import numpy as np

from tests.io.drifting import HEIGHT, WIDTH, clip, difference, scene
from tooncrafter_jax.io.palettes import keys_palette, snapped_to_palette
from tooncrafter_jax.notes import collected

SKY, GROUND, WALL = (150, 200, 235), (110, 160, 80), (200, 150, 110)


def noisy(frames: np.ndarray, sigma: float = 2.5, shift: int = 3) -> np.ndarray:
    uneven = np.random.default_rng(0).normal(shift, sigma, frames.shape)
    return np.clip(np.round(frames + uneven), 0, 255).astype(np.uint8)


def test_the_palette_is_what_flat_areas_have():
    palette = [tuple(int(value) for value in colour) for colour in keys_palette([scene(0), scene(1)])]
    assert palette[:2] == [SKY, GROUND] and WALL in palette and len(palette) <= 6


def test_flat_areas_become_exact_and_the_rest_comes_nearer():
    true = clip()
    drawn = noisy(true)
    found = snapped_to_palette(drawn, [true[0], true[-1]])
    assert (found == true).all(-1).mean() > 0.75 and (drawn == true).all(-1).mean() < 0.05
    assert difference(found, true).mean() < 0.35 * difference(drawn, true).mean()
    rows = slice(20, 45)  # the rims of the house, beside flat areas
    assert difference(found, true)[:, rows].mean() < difference(drawn, true)[:, rows].mean()


def test_exact_frames_stay_bit_by_bit():
    true = clip()
    np.testing.assert_array_equal(snapped_to_palette(true, [true[0], true[-1]]), true)


def test_a_faint_line_on_a_clean_ground_stays():
    true = clip()
    drawn = true.copy()
    drawn[4, 10, 10:60] -= 12
    found = snapped_to_palette(drawn, [true[0], true[-1]])
    np.testing.assert_allclose(found[4, 10, 20:50], drawn[4, 10, 20:50], atol=1)


def test_a_colour_that_the_keys_have_not_stays():
    true = clip()
    drawn = true.copy()
    drawn[4, :40, :60] = (240, 90, 200)
    found = snapped_to_palette(drawn, [true[0], true[-1]])
    np.testing.assert_array_equal(found[4, 5:35, 5:55], drawn[4, 5:35, 5:55])


def test_shading_stays():
    """Also where the rest of the keys is flat: a slope is no painted area, however gentle."""
    slope = np.linspace(90, 170, 80).astype(np.uint8)
    true = clip().copy()
    true[:, 62:94, 30:110] = np.stack([slope, slope, slope // 2], -1)
    np.testing.assert_array_equal(snapped_to_palette(true, [true[0], true[-1]]), true)


def test_between_two_like_colours_none_is_taken():
    keys = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    keys[:, 70:] = 112
    frames = np.stack([keys, np.full_like(keys, 106), keys])
    np.testing.assert_array_equal(snapped_to_palette(frames, [keys, keys]), frames)


def test_a_painting_without_flat_areas_is_said_and_stays():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 40, 56, 3)).astype(np.uint8)
    with collected() as said:
        found = snapped_to_palette(frames, [frames[0], frames[-1]])
    np.testing.assert_array_equal(found, frames)
    assert len(said) == 1 and "only 0 % of the key frames is flat" in said[0]
