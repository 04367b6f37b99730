"""Video that keeps every pixel: H.264 in RGB, small for drawings, of any size; for programs rather than browsers."""

from __future__ import annotations

import os

import av
import numpy as np
from av.error import FFmpegError

from tooncrafter_jax.io.formats import write_mp4
from tooncrafter_jax.io.frames import Frames, Path


def write_lossless(path: Path, frames: Frames) -> None:
    """Writes frames so that `read_lossless` gives the very same; see `write_mp4`."""
    write_mp4(path, frames, pixel_format="rgb24")


def read_lossless(path: Path) -> Frames | None:
    """All frames of a file, of one that was cut off perhaps fewer; None if it is not there or cannot be read."""
    try:
        with av.open(os.fspath(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (OSError, FFmpegError, ValueError, IndexError):
        return None
