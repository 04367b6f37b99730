"""Shots drawn by a narrow model: on one device and on eight, with sketches and prompts, and against single clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.sampling.test_pipeline import SETTINGS, make_toon
from tests.sampling.test_sequence import KEYS, sketch
from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.typing import Device

pytestmark = pytest.mark.heavy

FAST: dict[str, Any] = SETTINGS | {"steps": 1}
SHOT: dict[str, Any] = {
    "prompt": {0: "walks", 12: "runs"},
    "sketches": {6: sketch(10), 61: sketch(40)},
    "timing": "ease-in-out",
    "exposure": 2,
    "seed": 5,
}


@pytest.fixture(scope="module")
def toon(devices: list[Device]) -> ToonCrafter:
    """The narrow model on one device."""
    return make_toon(devices[:1])


@pytest.fixture(scope="module")
def shot(toon: ToonCrafter) -> np.ndarray:
    """Six keys with gaps of 1, 3, 8, 23 and 60 frames, two sketches and two prompts."""
    return toon.interpolate_sequence(KEYS, **SHOT, **FAST)


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """At most two levels, and any on 1 % of the values at most: float32 sums in another order differ by a level on
    0.1 % (see test_pipeline), and clips of the next level begin and end with such frames.
    """
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 2
    assert (difference > 0).mean() <= 1e-2


@pytest.mark.gate
def test_two_keys_a_clips_length_apart_are_that_clip_with_its_keys_as_they_were_drawn(toon: ToonCrafter) -> None:
    first, last = KEYS[0], KEYS[95]
    clip = toon.interpolate(first, last, "walks", {5: sketch()}, seed=5, **FAST)
    found = toon.interpolate_sequence({10: first, 25: last}, "walks", {15: sketch()}, seed=5, **FAST)
    np.testing.assert_array_equal(found, [first, *clip[1:-1], last])


@pytest.mark.gate
def test_a_shot_shows_its_keys_pixel_by_pixel(shot: np.ndarray) -> None:
    assert len(shot) == 96
    for frame, key in KEYS.items():
        np.testing.assert_array_equal(shot[frame], key)
    assert shot[1:].std() > 10


@pytest.mark.gate
def test_the_batch_changes_nothing(toon: ToonCrafter, shot: np.ndarray) -> None:
    assert_alike(toon.interpolate_sequence(KEYS, **SHOT, **FAST, batch_size=1), shot)


@pytest.mark.slow
def test_eight_devices_draw_the_same_shot(devices: list[Device], shot: np.ndarray) -> None:
    assert_alike(make_toon(devices[:8]).interpolate_sequence(KEYS, **SHOT, **FAST), shot)


@pytest.mark.slow
def test_sketches_and_prompts_change_the_shot(toon: ToonCrafter, shot: np.ndarray) -> None:
    without_sketches = toon.interpolate_sequence(KEYS, **(SHOT | {"sketches": None}), **FAST)
    other_prompt = toon.interpolate_sequence(KEYS, **(SHOT | {"prompt": {0: "walks", 12: "sits"}}), **FAST)
    assert not np.array_equal(without_sketches[6], shot[6])
    assert not np.array_equal(other_prompt[50], shot[50])
    np.testing.assert_array_equal(other_prompt[:12], shot[:12])


@pytest.mark.slow
def test_a_shot_is_drawn_through_its_keys(toon: ToonCrafter) -> None:
    keys = {0: KEYS[0], 8: KEYS[4], 16: KEYS[12]}
    plain = toon.interpolate_sequence(keys, seed=5, **SETTINGS)
    through = toon.interpolate_sequence(keys, seed=5, through_keys=True, **SETTINGS)
    assert [frame for frame in range(17) if not np.array_equal(through[frame], plain[frame])] == [6, 7, 9, 10]
