"""Pictures as bytes of a file, as Pillow writes them."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def encode_animation(pictures: list[Image.Image], form: str, delays: list[int], **options: Any) -> bytes:
    """An endless animation.

    Args:
      pictures: at least one, of one size.
      form: Pillow's name of the format.
      delays: milliseconds that each picture is shown.
      **options: of Pillow's writer.
    """
    buffer = io.BytesIO()
    first, *rest = pictures
    first.save(buffer, form, save_all=True, append_images=rest, duration=delays, loop=0, **options)
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
