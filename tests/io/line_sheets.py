"""Line drawings of known paper: an outlined figure with a toned part, which moves over a sheet."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

FRAMES, HEIGHT, WIDTH = 7, 128, 192
TONE = 170
_FINE = 4


def sheet(at: float, tone: bool = False) -> np.ndarray:
    """Dark lines, antialiased, on white: a head with eyes that moves to the right, above a ground line."""
    image = Image.new("L", (WIDTH * _FINE, HEIGHT * _FINE), 255)
    draw = ImageDraw.Draw(image)
    left = (10 + 80 * at) * _FINE
    draw.line((0, 80 * _FINE, WIDTH * _FINE, 76 * _FINE), fill=40, width=2 * _FINE)
    draw.ellipse((left, 20 * _FINE, left + 50 * _FINE, 70 * _FINE), outline=20, width=2 * _FINE)
    if tone:
        draw.rectangle((left + 14 * _FINE, 40 * _FINE, left + 38 * _FINE, 60 * _FINE), fill=TONE)
    for x in (16, 32):
        draw.ellipse((left + x * _FINE, 34 * _FINE, left + (x + 4) * _FINE, 38 * _FINE), fill=0)
    grey = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    return np.repeat(grey[..., None], 3, axis=-1)


def clip(tone: bool = False) -> np.ndarray:
    """The figure on its way."""
    return np.stack([sheet(float(at), tone) for at in np.linspace(0, 1, FRAMES)])


def soiled(frames: np.ndarray, paper: tuple[int, int, int], shade: float = 0.12, noise: float = 1.5) -> np.ndarray:
    """On coloured paper that grows darker to one side, with Gaussian noise."""
    rng = np.random.default_rng(0)
    light = 1 - shade * np.linspace(0, 1, frames.shape[-2])[:, None]
    seen = frames / 255 * np.array(paper) * light
    return np.clip(np.round(seen + rng.normal(0, noise, frames.shape)), 0, 255).astype(np.uint8)
