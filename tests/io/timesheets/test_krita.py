"""A written CSV in a program that animators use: Krita opens it, and shows the right drawing at each frame.

Run by hand (make test-slow): Krita is no package of Python's. On Debian: apt-get install krita.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.timesheets.sheets import disc
from tooncrafter_jax.io.timesheets import read_timesheet, sheet_of_frames, write_timesheet

KRITA = shutil.which("krita")
SECONDS = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(KRITA is None, reason="needs Krita, which is not on PATH"),
]


def frames_of_krita(path: Path, directory: Path, home: Path) -> list[np.ndarray]:
    """Every frame of an animation as Krita exports it, without a screen and with settings of its own."""
    directory.mkdir()
    home.mkdir()
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    subprocess.run(
        [str(KRITA), "--export-sequence", "--export-filename", str(directory / "frame.png"), str(path)],
        env={name: value for name, value in environment.items() if not name.startswith("XDG_CONFIG")},
        timeout=SECONDS,
        check=True,
        capture_output=True,
    )
    return [np.asarray(Image.open(file).convert("RGBA")) for file in sorted(directory.glob("*.png"))]


def composed(*layers: np.ndarray) -> np.ndarray:
    """Frames of layers, from the bottom, over each other; opacity is 0 or 255."""
    shown = layers[0].copy()
    for layer in layers[1:]:
        shown[layer[..., 3] == 255] = layer[layer[..., 3] == 255]
    return shown


def test_krita_shows_each_drawing_at_its_frames(tmp_path: Path):
    """Held drawings, one that returns, and an empty cel; two layers, of which the upper covers the lower."""
    lower = disc(6)[[0, 0, 3, 3, 0, 5, 5, 5]]
    upper = disc(6, colour=(10, 20, 200))[[1, 2, 2, 2, 0, 0, 4, 4]]
    upper[4:6] = 0
    sheet, pictures = sheet_of_frames({"lower": lower, "線画": upper}, fps=24, name="cut")
    path = write_timesheet(tmp_path / "cut.csv", sheet, pictures)[-1]
    found = frames_of_krita(path, tmp_path / "frames", tmp_path / "home")
    expected = composed(lower, upper)
    assert len(found) == 8
    for frame, (seen, drawn) in enumerate(zip(found, expected, strict=True)):
        seen = np.where(seen[..., 3:] == 0, 0, seen)
        np.testing.assert_array_equal(seen, drawn, err_msg=f"frame {frame}")
    assert read_timesheet(path) == sheet
