"""Animated PNG: lossless, with opacity."""

from __future__ import annotations

from fractions import Fraction

from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.encoding import LONGEST_DELAY, encode_animation
from tooncrafter_jax.io.formats.output_format import OneFile
from tooncrafter_jax.io.frames import (
    PUBLISHED_FPS,
    AnyFrames,
    Path,
    Rate,
    check_frames,
    check_playback_rate,
    durations,
)


def write_apng(path: Path, frames: AnyFrames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes an endless animated PNG, which keeps every pixel; equal neighbours are stored as one longer frame.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity.
      fps: playback rate; delays are rounded to milliseconds so that the whole lasts as long as it should.

    Raises:
      UserError: not such frames, an impossible `fps`, a drawing that is shown for more than 65 seconds, or a path that
        cannot be written.
    """
    check_frames(frames, has_alpha=True)
    delays = durations(len(frames), Apng().check_playback_rate(fps), ticks_per_second=1000)
    pictures = [Image.fromarray(frame) for frame in frames]
    write_atomically(path, encode_animation(pictures, "PNG", delays))


class Apng(OneFile):
    """See `OutputFormat`."""

    name = "apng"
    endings = ("apng",)
    has_alpha = True
    encode = staticmethod(write_apng)

    def check_playback_rate(self, fps: Rate) -> Fraction:
        """The rate.

        Raises:
          UserError: it is impossible, or frames last longer than the format can say.
        """
        rate = check_playback_rate(fps)
        if 1 / rate > LONGEST_DELAY["PNG"]:
            raise UserError(
                f"the playback fps is {fps}, but frames of an animated PNG last {LONGEST_DELAY['PNG']:g} seconds at "
                "most: choose more, or write mp4"
            )
        return rate
