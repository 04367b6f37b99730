"""Speeds at keys: of a motion that is even, of one that stalls at a key, and of one that turns there."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs the extra 'data'")

from tooncrafter_jax.curation.motion import DisFlow
from tooncrafter_jax.evaluation.key_speeds import KeySpeed, key_speeds, speeds_along

KEYS = (0, 10, 20)


def video(places: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """A patch with a pattern, at these columns."""
    pattern = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    frames = np.full((len(places), 128, 192, 3), 255, np.uint8)
    for frame, place, row in zip(frames, places, np.full(len(places), 40) if rows is None else rows, strict=True):
        frame[int(row) : int(row) + 40, int(place) : int(place) + 40] = pattern
    return frames


def test_an_even_motion_neither_stalls_nor_jumps() -> None:
    """Within a quarter: the flow at the border of what moves is uncertain."""
    (key,) = key_speeds(video(10 + 4 * np.arange(21)), KEYS, DisFlow())
    assert key.frame == 10
    assert (key.stall, key.jump) == pytest.approx((1, 1), abs=0.25)
    assert key.turn < 10


def test_a_stall_and_a_jump_at_a_key_are_seen() -> None:
    steps = np.full(20, 4)
    steps[9], steps[10] = 1, 9
    (key,) = key_speeds(video(10 + np.concatenate([[0], np.cumsum(steps)])), KEYS, DisFlow())
    assert key.stall < 0.5
    assert key.jump > 1.5


def test_a_turn_at_a_key_is_seen() -> None:
    frames = np.arange(21)
    (key,) = key_speeds(video(10 + 4 * frames, 10 + 4 * np.maximum(frames - 10, 0)), KEYS, DisFlow())
    assert 25 < key.turn < 65


def test_held_drawings_count_once() -> None:
    """On twos a step is twice as far and lasts twice as long."""
    held = video(10 + 4 * (np.arange(21) // 2 * 2))
    (key,) = key_speeds(held, KEYS, DisFlow())
    (even,) = key_speeds(video(10 + 4 * np.arange(21)), KEYS, DisFlow())
    assert key.inside == pytest.approx(even.inside, rel=0.25)


def test_the_speed_along_a_shot_is_that_of_its_steps() -> None:
    steps = np.array([4, 4, 0, 8, 4, 4])
    speeds = speeds_along(video(10 + np.concatenate([[0], np.cumsum(steps)])), DisFlow())
    assert speeds.shape == (6,)
    assert speeds[2] == pytest.approx(speeds[3]), "a drawing that is held for two frames"
    assert speeds[[1, 2, 4]] == pytest.approx(np.full(3, speeds[0]), rel=0.25)


def test_a_key_in_the_middle_of_a_hold_has_no_speeds() -> None:
    """Its drawing was there before it, or stays to the end."""
    places = 10 + 4 * np.arange(21)
    before, after = places.copy(), places.copy()
    before[8:12] = before[8]
    after[10:] = after[10]
    for held in (before, after, np.full(21, 10)):
        assert key_speeds(video(held), KEYS, DisFlow()) == []


def test_where_nothing_moves_inside_there_is_no_share() -> None:
    key = KeySpeed(10, 1.0, 2.0, inside=0.0, turn=0.0)
    assert np.isnan([key.stall, key.jump]).all()
