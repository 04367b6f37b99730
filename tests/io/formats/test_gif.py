"""A GIF lasts as long as it should, and what is still in it stays still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.io.formats.animations import read_animation
from tests.io.formats.clips import cartoon, files, psnr
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_gif
from tooncrafter_jax.io.formats import FORMATS


@pytest.mark.parametrize(("fps", "seconds"), [(8, 2.0), (7, 16 / 7), (24, 2 / 3)])
def test_it_lasts_as_long_as_it_should(tmp_path: Path, fps: int, seconds: float):
    write_gif(tmp_path / "a.gif", cartoon(), fps=fps)
    pictures, delays, loop = read_animation(tmp_path / "a.gif")
    assert loop == 0 and psnr(pictures, cartoon()) >= 40  # 256 colours for a graded sky
    assert abs(sum(delays) / 1000 - seconds) <= 0.005 + 1e-9 and max(delays) - min(delays) <= 10


def test_still_parts_stay_still(tmp_path: Path):
    frames = cartoon()
    write_gif(tmp_path / "a.gif", frames)
    pictures, _, _ = read_animation(tmp_path / "a.gif")
    still = (frames == frames[:1]).all(axis=(0, 3))
    assert still.mean() > 0.3
    np.testing.assert_array_equal(pictures[:, still], np.repeat(pictures[:1, still], 16, axis=0))


def test_viewers_do_not_show_more_than_50_frames_a_second(tmp_path: Path):
    assert FORMATS["gif"].check_playback_rate(50) == 50
    with pytest.raises(UserError, match="GIF viewers show at most 50"):
        FORMATS["gif"].check_playback_rate(50.1)
    with pytest.raises(UserError, match="fps is 60"):
        write_gif(tmp_path / "a.gif", cartoon(), fps=60)
    assert files(tmp_path) == []


def test_a_drawing_that_is_shown_for_longer_than_the_format_can_say(tmp_path: Path):
    with pytest.raises(UserError, match="longer than the 655.35 seconds that animated GIF can hold: choose a higher"):
        write_gif(tmp_path / "a.gif", np.repeat(cartoon(1), 8, axis=0), fps=0.01)  # equal frames are one
    assert files(tmp_path) == []
