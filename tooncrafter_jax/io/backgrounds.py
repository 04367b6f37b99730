"""Colours to draw cels over: far from all that is drawn, so that what shows through can be told from it."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ImageColor

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.cielab import lab_of_srgb
from tooncrafter_jax.io.sizes import Colour

AUTO = "auto"
"""As a background: one that is far from the drawing's colours."""
FAR = 35.0
"""Difference in CIE L*a*b* from which on colours are surely told apart in what a model draws."""
NEAR = 10.0
"""Below this, a background is a colour of the drawing."""
SEEN = 32
"""Opacity, of 255, from which on a pixel's colour is one of the drawing: below, rounding leaves too little of it."""
FAR_ENOUGH = 45.0
"""From this on, a background that models have seen the like of is better than one that is farther."""
_STEPS = (0, 64, 128, 192, 255)
_HUES, _SATURATIONS, _VALUES = 24, (0.4, 0.55, 0.7), (0.65, 0.8, 0.95)
"""Of colours that pictures have as backgrounds. Over stronger ones models draw blocks and tints."""
_MOST_COLOURS = 4096


def colour_named(text: str) -> Colour:
    """A colour by its name ("green"), or as "#0f0", "#00ff00" or "rgb(0, 255, 0)".

    Raises:
      UserError: it is none.
    """
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text.strip())
    except ValueError as error:
        raise UserError(
            f"the background '{printable(text, 40)}' is no colour: give auto, a name such as green, or #00ff00"
        ) from error
    if alpha and alpha[0] != 255:
        raise UserError(f"the background '{text}' is not opaque: give a colour without opacity")
    return red, green, blue


def hex_of(colour: Colour) -> str:
    """A colour as "#00ff00"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def colours_of(picture: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "N 3"]:
    """The different colours of what is drawn, in steps of 4 levels; those below what is hardly opaque do not count."""
    seen = picture[picture[..., 3] >= SEEN][:, :3]
    packed = (seen.astype(np.uint32) >> 2) @ np.array([1 << 12, 1 << 6, 1], np.uint32)
    values, counts = np.unique(packed, return_counts=True)
    values = values[np.argsort(-counts, kind="stable")][:_MOST_COLOURS]
    parts = np.stack([values >> 12, (values >> 6) & 63, values & 63], axis=-1)
    return (parts * 4 + 2).astype(np.uint8)


def nearness(colours: UInt8[np.ndarray, "N 3"], background: Colour) -> float:
    """The difference in L*a*b* between a background and the nearest of some colours, at least one."""
    return float(_distances(colours, np.array([background], np.uint8))[0])


def farthest_background(colours: UInt8[np.ndarray, "N 3"], apart_from: Colour | None = None) -> tuple[Colour, float]:
    """The background whose nearest colour is farthest away: a moderate one, if there is one that is far enough.

    Args:
      colours: of the drawing, at least one.
      apart_from: another background, from which it is to be far as well.

    Returns:
      The background, and its difference in L*a*b* from the nearest.
    """
    others = colours if apart_from is None else np.concatenate([colours, np.array([apart_from], np.uint8)])
    moderate = _farthest(others, _moderate())
    if moderate[1] >= FAR_ENOUGH:
        return moderate
    strong = _farthest(others, np.array(list(itertools.product(_STEPS, repeat=3)), np.uint8))
    return max(moderate, strong, key=lambda found: found[1])


def _moderate() -> UInt8[np.ndarray, "N 3"]:
    hues = [hue / _HUES for hue in range(_HUES)]
    tones = [colorsys.hsv_to_rgb(*tone) for tone in itertools.product(hues, _SATURATIONS, _VALUES)]
    return np.round(255 * np.array(tones)).astype(np.uint8)


def _farthest(colours: np.ndarray, backgrounds: np.ndarray) -> tuple[Colour, float]:
    near = _distances(colours, backgrounds)
    best = int(np.argmax(near))
    red, green, blue = (int(value) for value in backgrounds[best])
    return (red, green, blue), float(near[best])


def _distances(colours: np.ndarray, backgrounds: np.ndarray) -> Float[np.ndarray, "backgrounds"]:
    """Of each background, that from the nearest colour."""
    own, of_drawing = lab_of_srgb(backgrounds), lab_of_srgb(colours)
    return np.array([np.sqrt(((of_drawing - one) ** 2).sum(-1).min()) for one in own])
