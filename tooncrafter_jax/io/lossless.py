"""Video that keeps every pixel: H.264 in RGB, small for drawings, of any size; for programs rather than browsers."""

from __future__ import annotations

import io
import os

import av
import numpy as np
from av.error import FFmpegError

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.frames import PUBLISHED_FPS, Frames, Path, Rate, check_playback_rate

_ENCODER = "libx264rgb"
_OPTIONS = {"qp": "0", "preset": "veryfast"}  # a quantiser of 0 loses nothing


def write_lossless(path: Path, frames: Frames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes frames so that `read_lossless` gives the very same.

    Args:
      path: of the .mp4 file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), at least one.
      fps: playback rate.

    Raises:
      UserError: PyAV has no such encoder, or the path cannot be written.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        try:
            stream = container.add_stream(_ENCODER, rate=check_playback_rate(fps), options=_OPTIONS)
        except (FFmpegError, ValueError) as error:
            raise UserError("this build of PyAV has no H.264 encoder: pip install --force-reinstall av") from error
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"  # pyright: ignore
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))  # pyright: ignore[reportAttributeAccessIssue]
        container.mux(stream.encode())  # pyright: ignore[reportAttributeAccessIssue]
    write_atomically(path, buffer.getvalue())


def read_lossless(path: Path) -> Frames | None:
    """All frames of a file; None if it is not there or not whole."""
    try:
        with av.open(os.fspath(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (OSError, FFmpegError, ValueError, IndexError):
        return None
