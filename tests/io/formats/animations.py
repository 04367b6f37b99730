"""Reads animations back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence


def read_animation(path: Path, mode: str = "RGB") -> tuple[np.ndarray, list[float], int]:
    """The pictures, how many milliseconds each is shown, and how often all are (0: for ever)."""
    with Image.open(path) as image:
        loop, pictures, delays = image.info["loop"], [], []
        for picture in ImageSequence.Iterator(image):
            pictures.append(np.asarray(picture.convert(mode)))
            delays.append(picture.info["duration"])
    return np.stack(pictures), delays, loop
