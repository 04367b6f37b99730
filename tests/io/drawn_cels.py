"""Cels drawn with Pillow, antialiased, of which the opacity is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tooncrafter_jax.io.sizes import Colour
from tooncrafter_jax.io.transparency import over

SIDE, LARGER = 96, 4
Draw = Callable[[ImageDraw.ImageDraw, float], None]


def _drawn(draw: Draw, at: float) -> np.ndarray:
    """A picture (SIDE, SIDE, 4), drawn larger and brought down."""
    sheet = Image.new("RGBA", (SIDE * LARGER, SIDE * LARGER))
    draw(ImageDraw.Draw(sheet), at)
    return np.asarray(sheet.resize((SIDE, SIDE), Image.Resampling.BOX))


def _disc(pen: ImageDraw.ImageDraw, at: float) -> None:
    x = 100 + 180 * at
    pen.ellipse((x - 80, 100, x + 80, 260), fill=(230, 60, 40), outline=(30, 20, 20), width=10)
    pen.ellipse((x - 40, 140, x, 180), fill=(250, 250, 250))


def _lines(pen: ImageDraw.ImageDraw, at: float) -> None:
    for index in range(6):
        pen.line((20 + 60 * index, 20, 60 + 40 * index + 60 * at, 360), fill=(20, 20, 30), width=6)


def disc(at: float) -> np.ndarray:
    """A red disc with an outline and a white spot, from left to right."""
    return _drawn(_disc, at)


def lines(at: float) -> np.ndarray:
    """Lines of about a pixel and a half, none of which is opaque everywhere."""
    return _drawn(_lines, at)


def shadow(at: float) -> np.ndarray:
    """The disc above its soft shadow, which is nowhere opaque."""
    cast = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(cast).ellipse((5 + 45 * at, 68, 45 + 45 * at, 84), fill=140)
    alpha = np.asarray(cast.filter(ImageFilter.GaussianBlur(3)))
    below = Image.fromarray(np.dstack([np.full((SIDE, SIDE, 3), (15, 15, 40), np.uint8), alpha]))
    return np.asarray(Image.alpha_composite(below, Image.fromarray(disc(at))))


CELS: dict[str, Callable[[float], np.ndarray]] = {"disc": disc, "lines": lines, "shadow": shadow}


def blurred(cel: np.ndarray, sigma: float) -> np.ndarray:
    """A cel whose rims are as soft as a model draws them."""
    bands = [band.filter(ImageFilter.GaussianBlur(sigma)) for band in Image.fromarray(cel).convert("RGBa").split()]
    return np.asarray(Image.merge("RGBa", bands).convert("RGBA"))


def drawn_over(cel: np.ndarray, background: Colour, noise: float = 0, drift: int = 0) -> np.ndarray:
    """What a model might draw: the cel over the background, with Gaussian noise and a shift of all colours."""
    exact = over(cel, background).astype(np.float32)
    uneven = np.random.default_rng(0).normal(0, noise, exact.shape) if noise else 0
    return np.clip(np.round(exact + uneven + drift), 0, 255).astype(np.uint8)
