"""An animated WebP lasts as long as it should, and looks as it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.io.formats.animations import read_animation
from tests.io.formats.clips import cartoon, cel, files, over_grey, psnr
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_webp


@pytest.mark.parametrize(("fps", "seconds"), [(8, 2.0), (7, 16 / 7), (24, 2 / 3)])
def test_it_lasts_as_long_as_it_should_and_loses_little(tmp_path: Path, fps: int, seconds: float):
    write_webp(tmp_path / "a.webp", cartoon(), fps=fps)
    pictures, delays, loop = read_animation(tmp_path / "a.webp")
    assert (
        pictures.shape == cartoon().shape and psnr(pictures, cartoon()) > 29
    )  # measured: 29.7; colour has half the resolution
    assert loop == 0 and abs(sum(delays) / 1000 - seconds) <= 0.0005 + 1e-9 and max(delays) - min(delays) <= 1


def test_opacity_is_kept_without_loss(tmp_path: Path):
    write_webp(tmp_path / "a.webp", cel())
    pictures, _, _ = read_animation(tmp_path / "a.webp", "RGBA")
    np.testing.assert_array_equal(pictures[..., 3], cel()[..., 3])
    assert np.abs(over_grey(pictures) - over_grey(cel())).mean() < 1


def test_impossible_settings_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="16383"):
        write_webp(tmp_path / "a.webp", np.zeros((1, 8, 16384, 3), np.uint8))
    with pytest.raises(UserError, match="fps is -1"):
        write_webp(tmp_path / "a.webp", cartoon(), fps=-1)
    assert files(tmp_path) == []
