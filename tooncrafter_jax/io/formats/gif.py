"""Animated GIF."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.encoding import encode_animation
from tooncrafter_jax.io.formats.output_format import OneFile
from tooncrafter_jax.io.frames import (
    PUBLISHED_FPS,
    Frames,
    Path,
    Rate,
    check_frames,
    check_playback_rate,
    durations,
)

MAX_GIF_FPS = 50
"""Viewers show a shorter delay than two hundredths of a second as a longer one."""


def write_gif(path: Path, frames: Frames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes an endless GIF.

    All frames share one palette of 256 colours, without dithering, so that still parts stay still. GIF counts in
    hundredths of a second: delays are rounded so that the whole lasts as long as it should. Equal neighbours are stored
    as one longer frame.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3).
      fps: playback rate, at most 50.

    Raises:
      UserError: not such frames, an impossible `fps`, a drawing that is shown for more than 655 seconds, or a path that
        cannot be written.
    """
    check_frames(frames)
    rate = Gif().check_playback_rate(fps)
    stacked = Image.fromarray(np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3))
    palette = stacked.quantize(256, method=Image.Quantize.FASTOCTREE)
    pictures = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    delays = [10 * hundredths for hundredths in durations(len(frames), rate, ticks_per_second=100)]
    write_atomically(path, encode_animation(pictures, "GIF", delays, optimize=False))


class Gif(OneFile):
    """See `OutputFormat`."""

    name = "gif"
    endings = ("gif",)
    encode = staticmethod(write_gif)

    def check_playback_rate(self, fps: Rate) -> Fraction:
        """The rate.

        Raises:
          UserError: it is impossible, or more than viewers show.
        """
        rate = check_playback_rate(fps)
        if fps > MAX_GIF_FPS:
            raise UserError(
                f"the playback fps is {fps}, but GIF viewers show at most {MAX_GIF_FPS}: choose less, "
                "or write mp4 or WebP"
            )
        return rate
