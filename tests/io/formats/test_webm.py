"""WebM keeps opacity, and edges their colours although four pixels share one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.io.formats.clips import cartoon, cel, files, over_grey
from tests.io.formats.videos import read_rgba
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_webm
from tooncrafter_jax.io.formats import webm


@pytest.mark.parametrize("cut", [0, 1])
def test_opacity_and_colours_come_back(tmp_path: Path, cut: int):
    """Of odd sides too."""
    frames = np.ascontiguousarray(cel()[:, cut:, cut:])
    write_webm(tmp_path / "a.webm", frames, fps=12)
    decoded, facts = read_rgba(tmp_path / "a.webm", "libvpx-vp9")
    assert (facts["pixels"], facts["rate"], facts["matrix"]) == ("yuva420p", 12, 1)
    assert facts["alpha_mode"] == "1"  # which browsers look at
    opacity = np.abs(decoded[..., 3].astype(int) - frames[..., 3])
    assert opacity.max() <= 16 and opacity.mean() < 0.1  # measured: 9 and 0.04
    error = np.abs(over_grey(decoded) - over_grey(frames))
    rim = (frames[..., 3] > 0) & (frames[..., 3] < 255) & (frames[..., 0] > 100)
    # The rim of the disc has transparent black beside it, which would take 20 levels of its red on average.
    assert error.mean() < 1 and error[rim].mean() < 6


def test_an_opaque_clip_has_no_opacity(tmp_path: Path):
    write_webm(tmp_path / "a.webm", cartoon())
    _, facts = read_rgba(tmp_path / "a.webm", "libvpx-vp9")
    assert facts["pixels"] == "yuv420p" and "alpha_mode" not in facts


def test_a_missing_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webm, "SETTINGS", replace(webm.SETTINGS, encoder="no_such_encoder"))
    with pytest.raises(UserError, match="this build of PyAV has no VP9 encoder"):
        write_webm(tmp_path / "a.webm", cel(2))
    assert files(tmp_path) == []
