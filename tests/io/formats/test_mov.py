"""ProRes 4444 keeps opacity, and a colour for each pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.io.formats.clips import cartoon, cel, files, over_grey
from tests.io.formats.videos import read_rgba
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_mov
from tooncrafter_jax.io.formats import mov


@pytest.mark.parametrize("cut", [0, 1])
def test_opacity_and_colours_come_back(tmp_path: Path, cut: int):
    """Of odd sides too."""
    frames = np.ascontiguousarray(cel()[:, cut:, cut:])
    write_mov(tmp_path / "a.mov", frames, fps=24)
    decoded, facts = read_rgba(tmp_path / "a.mov", "prores")
    assert (facts["pixels"], facts["rate"], facts["matrix"]) == ("yuva444p10le", 24, 1)
    assert decoded.shape == frames.shape
    assert np.abs(decoded[..., 3].astype(int) - frames[..., 3]).max() <= 1
    # Measured: 2. Ten bits, and the codec's own rounding.
    assert np.abs(over_grey(decoded) - over_grey(frames)).max() <= 4


def test_an_opaque_clip_has_no_opacity(tmp_path: Path):
    write_mov(tmp_path / "a.mov", cartoon())
    decoded, facts = read_rgba(tmp_path / "a.mov", "prores")
    assert facts["pixels"] == "yuv444p10le" and (decoded[..., 3] == 255).all()
    assert np.abs(decoded[..., :3].astype(int) - cartoon()).max() <= 6


def test_a_missing_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mov, "SETTINGS", replace(mov.SETTINGS, encoder="no_such_encoder"))
    with pytest.raises(UserError, match="this build of PyAV has no ProRes encoder"):
        write_mov(tmp_path / "a.mov", cel(2))
    assert files(tmp_path) == []
