"""An animated PNG keeps every pixel and its opacity, and lasts as long as it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.io.formats.animations import read_animation
from tests.io.formats.clips import cartoon, cel, files
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_apng


@pytest.mark.parametrize(("fps", "seconds"), [(8, 2.0), (7, 16 / 7), (24, 2 / 3)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_it_is_lossless_and_lasts_as_long_as_it_should(tmp_path: Path, fps: int, seconds: float, mode: str):
    frames = cel() if mode == "RGBA" else cartoon()
    write_apng(tmp_path / "a.apng", frames, fps=fps)
    pictures, delays, loop = read_animation(tmp_path / "a.apng", mode)
    np.testing.assert_array_equal(pictures, frames)
    assert loop == 0 and abs(sum(delays) / 1000 - seconds) <= 0.0005 + 1e-9 and max(delays) - min(delays) <= 1


def test_a_held_drawing_is_stored_once_and_shown_as_long(tmp_path: Path):
    write_apng(tmp_path / "a.apng", np.repeat(cel(2), [5, 3], axis=0), fps=10)
    pictures, delays, _ = read_animation(tmp_path / "a.apng", "RGBA")
    assert len(pictures) == 2 and delays == [500, 300]


def test_impossible_settings_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="fps is 0"):
        write_apng(tmp_path / "a.apng", cel(), fps=0)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("fps", "seconds"), [(0.015, 66.667), (0.02, 150), (0.0101, 297.03)])
def test_slow_clips_last_as_long_as_they_should(tmp_path: Path, fps: float, seconds: float):
    """16 bits have no room for their milliseconds, so that what they last is rounded; equal frames are one."""
    held = 1 if fps == 0.015 else 3
    write_apng(tmp_path / "a.apng", np.repeat(cel(2), [held, 1], axis=0), fps=fps)
    _, delays, _ = read_animation(tmp_path / "a.apng", "RGBA")
    assert delays[0] / 1000 == pytest.approx(seconds, rel=1e-3)


def test_a_drawing_that_is_shown_for_longer_than_the_format_can_say(tmp_path: Path):
    with pytest.raises(UserError, match="longer than the 65,535 seconds that animated PNG can hold: choose a higher"):
        write_apng(tmp_path / "a.apng", np.repeat(cel(2, 8, 8), [660, 1], axis=0), fps=0.01)
    assert files(tmp_path) == []
