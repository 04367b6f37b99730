"""Animated WebP."""

from __future__ import annotations

import os

from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.encoding import encode_animation
from tooncrafter_jax.io.formats.output_format import OneFile
from tooncrafter_jax.io.frames import PUBLISHED_FPS, AnyFrames, Path, Rate, check_frames, check_playback_rate, durations

MAX_WEBP_SIDE = 16383
QUALITY = 90
"""Of 100; more than Pillow's 80, as drawings have hard edges."""


def write_webp(path: Path, frames: AnyFrames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes an endless animated WebP.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity, which loses nothing; sides up to 16383.
      fps: playback rate.

    Raises:
      UserError: not such frames, an impossible `fps`, or a path that cannot be written.
    """
    check_frames(frames, has_alpha=True)
    rate = check_playback_rate(fps)
    if max(frames.shape[1:3]) > MAX_WEBP_SIDE:
        raise UserError(f"'{os.fspath(path)}' cannot hold sides over {MAX_WEBP_SIDE} pixels: write PNG instead")
    pictures = [Image.fromarray(f) for f in frames]
    delays = durations(len(frames), rate, ticks_per_second=1000)
    write_atomically(path, encode_animation(pictures, "WEBP", delays, quality=QUALITY))


class Webp(OneFile):
    """See `OutputFormat`."""

    name = "webp"
    endings = ("webp",)
    has_alpha = True
    encode = staticmethod(write_webp)
