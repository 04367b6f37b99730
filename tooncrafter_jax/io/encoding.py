"""Pictures as bytes of a file, as Pillow writes them."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image

from tooncrafter_jax.errors import UserError

LONGEST_DELAY = {"PNG": 65535, "GIF": 655.35}
"""Pillow's name of a format -> seconds that a picture can be shown, as 16 bits count them or their hundredths."""


def encode_animation(pictures: list[Image.Image], form: str, delays: list[int], **options: Any) -> bytes:
    """An endless animation.

    Args:
      pictures: at least one, of one size.
      form: Pillow's name of the format.
      delays: milliseconds that each picture is shown.
      **options: of Pillow's writer.

    Raises:
      UserError: a picture, or equal ones in a row, are shown for longer than the format can say.
    """
    buffer = io.BytesIO()
    first, *rest = pictures
    try:
        first.save(buffer, form, save_all=True, append_images=rest, duration=delays, loop=0, **options)
    except (struct.error, ValueError) as error:
        if isinstance(error, ValueError) and "duration" not in str(error):
            raise
        raise UserError(
            f"a drawing is shown for longer than the {LONGEST_DELAY.get(form, 0):,} seconds that animated {form} can "
            "hold: choose a higher playback fps, or write mp4"
        ) from error
    return buffer.getvalue()


def encode_png(picture: Image.Image, profile: bytes | None = None) -> bytes:
    """A PNG file.

    Args:
      picture: of any mode that PNG holds.
      profile: of its colours (ICC), to be embedded; None: none, which stands for sRGB.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()
