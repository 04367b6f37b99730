"""An evaluation streams: ten times as many clips take no more memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tooncrafter_jax.data.clip_sets import ClipReference, write_clips
from tooncrafter_jax.data.records import Clip, clip_of_pictures

SIDE, FRAMES = 64, 16
PROGRAM = """
import resource, sys
from tooncrafter_jax.__main__ import main
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def clip(number: int) -> Clip:
    """A square on its way over a ground of the clip's own colour."""
    pictures = np.full((FRAMES, SIDE, SIDE, 3), (number % 200, 90, 255 - number % 250), np.uint8)
    for index in range(FRAMES):
        left = (number + 2 * index) % (SIDE - 12)
        pictures[index, 20:32, left : left + 12] = 240
    return clip_of_pictures(pictures, id=f"{number:05}/0", source=f"{number:05}", fps=8.0, caption="a square")


def peak(directory: Path, clips: int) -> float:
    """MiB of a run over so many clips."""
    references = [ClipReference(f"{n:05}/0", 12_000, lambda n=n: clip(n)) for n in range(clips)]
    write_clips(directory / "set", {"test": references})
    argv = [str(directory / "set"), f"--out={directory / 'out'}", f"--height={SIDE}", f"--width={SIDE}", "--quiet"]
    argv += ["--methods", "still", "cross_fade", "--metrics", "psnr", "ssim", "key_frames", "colour_drift", "flicker"]
    command = [sys.executable, "-c", PROGRAM, "evaluate", *argv, "--batch-size=10", "--no-videos"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stderr[-2000:]
    code, mebibytes = result.stdout.splitlines()[-1].split()
    assert code == "0"
    return float(mebibytes)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    few, many = peak(tmp_path / "few", 300), peak(tmp_path / "many", 3000)
    print(f"\n300 clips: {few:.0f} MiB, 3,000 clips: {many:.0f} MiB")
    assert many < 1.1 * few
