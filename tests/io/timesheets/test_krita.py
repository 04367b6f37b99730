"""A written CSV in a program that animators use: Krita opens it, and saves the same drawings at the same frames.

Krita 5.1.5 crashes in its loader of CSV with pictures that are quick to open, unless they have a profile as ours have
(`TvpaintCsv.write`); the drawings here are small, so that it would.

Run by hand (make test-slow): Krita is no package of Python's. On Debian: apt-get install krita xvfb xauth.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.io.timesheets.sheets import disc
from tooncrafter_jax.io.timesheets import read_cel, read_timesheet, sheet_of_frames, write_timesheet

KRITA, SCREEN = shutil.which("krita"), shutil.which("xvfb-run")
SECONDS = 300
"""The first run fills Krita's directory of settings."""
RUNS = 5
"""A crash comes in nearly each run."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(KRITA is None or SCREEN is None, reason="needs Krita and xvfb-run, which are not on PATH"),
]


def saved_by_krita(path: Path, directory: Path) -> Path:
    """Opens a CSV in Krita, which runs without a screen and with settings of its own, and lets it save another.

    Krita puts the pictures of its own beside the file that it opened, under names of its own; they are moved to where a
    reader looks for them.
    """
    home = directory / "home"
    home.mkdir(parents=True, mode=0o700)
    saved = directory / "saved.csv"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "QT_"))}
    command = [str(SCREEN), "-a", str(KRITA), "--export", "--export-filename", str(saved), str(path)]
    for run in range(RUNS):
        done = subprocess.run(
            command,
            env=environment | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
            timeout=SECONDS,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"run {run}: {done.returncode}: {done.stderr[-2000:]}"
    pictures = directory / "saved.frames"
    pictures.mkdir()
    for picture in path.with_suffix(".frames").glob("frame0*.png"):
        picture.rename(pictures / picture.name)
    return saved


def test_krita_opens_what_is_written_and_saves_the_same(tmp_path: Path):
    """Held drawings, one that returns, an empty cel, a hidden layer, and a name that is not Latin."""
    lower = disc(6)[[0, 0, 3, 3, 0, 5, 5, 5]]
    upper = disc(6, colour=(10, 20, 200))[[1, 2, 2, 2, 0, 0, 4, 4]]
    upper[4:6] = 0
    frames = {"lower": lower, "線画": upper, "rough": disc(8, colour=(90, 90, 90))}
    sheet, pictures = sheet_of_frames(frames, fps=12, name="cut 12")
    *layers, rough = sheet.layers
    sheet = dataclasses.replace(sheet, layers=(*layers, dataclasses.replace(rough, visible=False)))
    path = write_timesheet(tmp_path / "cut.csv", sheet, pictures)[-1]
    found = read_timesheet(saved_by_krita(path, tmp_path / "krita"))
    assert (found.name, found.duration, found.fps, found.size) == ("cut 12", 8, 12, (32, 24))
    assert [(layer.name, layer.visible, layer.opacity) for layer in found.layers] == [
        ("lower", True, 1),
        ("線画", True, 1),
        ("rough", False, 1),
    ]
    for layer in found.layers:
        for frame, (drawing, drawn) in enumerate(zip(layer.shown(8), frames[layer.name], strict=True)):
            seen = np.zeros_like(drawn) if drawing is None else read_cel(layer.cels[drawing], found.size)
            np.testing.assert_array_equal(seen, drawn, err_msg=f"frame {frame} of {layer.name}")
    assert found.layers[1].shown(8)[4:6] == [None, None]
