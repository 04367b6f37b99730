"""Drawn backgrounds for composed clips: flat colours, patterns, and simple landscapes and rooms, all made by this
file.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

_OVERSAMPLING = 2  # drawn larger and averaged, as the drawing library's edges are hard

Colour = tuple[int, int, int]
_Point = tuple[float, float]


class _Canvas:
    """Draws in units of the picture's height: x from 0 to `aspect`, y from 0 at the top to 1."""

    def __init__(self, height: int, width: int, rng: np.random.Generator):
        self.size = width, height
        self.scale = height * _OVERSAMPLING
        self.aspect = width / height
        self.rng = rng
        self.image = Image.new("RGB", (width * _OVERSAMPLING, self.scale))
        self.draw = ImageDraw.Draw(self.image)
        self.ink: Colour | None = (45, 35, 50) if rng.random() < 0.4 else None
        self.ink_width = max(1, round(self.scale * rng.uniform(0.003, 0.007)))

    def polygon(self, points: list[_Point], colour: Colour, inked: bool = True) -> None:
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self.draw.polygon(scaled, fill=colour)
        if inked and self.ink:
            self.draw.line([*scaled, scaled[0]], fill=self.ink, width=self.ink_width, joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour, inked: bool = True) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, inked)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, inked: bool = True) -> None:
        bounds = [(x - rx) * self.scale, (y - ry) * self.scale, (x + rx) * self.scale, (y + ry) * self.scale]
        self.draw.ellipse(bounds, fill=colour, outline=self.ink if inked else None, width=self.ink_width)

    def line(self, points: list[_Point], colour: Colour, width: float) -> None:
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self.draw.line(scaled, fill=colour, width=max(1, round(width * self.scale)), joint="curve")

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> None:
        first, last = round(start * self.scale), round(end * self.scale)
        share = np.linspace(0, 1, max(1, last - first))[:, None, None]
        rows = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
        strip = np.broadcast_to(np.rint(rows).astype(np.uint8), (len(rows), self.image.width, 3))
        self.image.paste(Image.fromarray(np.ascontiguousarray(strip)), (0, first))

    def finished(self) -> UInt8[np.ndarray, "H W 3"]:
        return np.asarray(self.image.resize(self.size, Image.Resampling.BOX))


@dataclasses.dataclass(frozen=True)
class Background:
    """A kind of background.

    Attributes:
      phrase: how a caption says it.
      paint: draws one; all it chooses comes from the canvas's random numbers.
    """

    phrase: str
    paint: Callable[[_Canvas], None]


def paint_background(kind: str, rng: np.random.Generator, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """Draws a background of a kind of `PLAIN` or `DRAWN`, the same for a generator in the same state."""
    canvas = _Canvas(height, width, rng)
    (PLAIN | DRAWN)[kind].paint(canvas)
    return canvas.finished()


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Red, green and blue, 0 to 255, of a hue (a turn is 1), a saturation and a value, 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))
    return round(red * 255), round(green * 255), round(blue * 255)


def _any_colour(rng: np.random.Generator) -> Colour:
    return colour(rng.random(), rng.uniform(0.15, 0.7), rng.uniform(0.6, 0.97))


def _two_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two that go together: near in hue, apart in lightness."""
    hue, value = rng.random(), rng.uniform(0.7, 0.85)
    near = hue + rng.uniform(-0.08, 0.08)
    return colour(hue, rng.uniform(0.3, 0.6), value), colour(
        near, rng.uniform(0.15, 0.4), value + rng.uniform(0.07, 0.14)
    )


def _flat(canvas: _Canvas) -> None:
    tint = _any_colour(canvas.rng)
    canvas.gradient(tint, tint)


def _gradient(canvas: _Canvas) -> None:
    canvas.gradient(*_two_colours(canvas.rng))


def _stripes(canvas: _Canvas) -> None:
    first, second = _two_colours(canvas.rng)
    canvas.gradient(first, first)
    width, lean = canvas.rng.uniform(0.06, 0.16), canvas.rng.uniform(-1, 1)
    for x in np.arange(-2.0, canvas.aspect + 2, 2 * width).tolist():
        canvas.polygon([(x, 0.0), (x + width, 0.0), (x + width + lean, 1.0), (x + lean, 1.0)], second, inked=False)


def _dots(canvas: _Canvas) -> None:
    first, second = _two_colours(canvas.rng)
    canvas.gradient(first, first)
    step = canvas.rng.uniform(0.1, 0.2)
    radius = step * canvas.rng.uniform(0.2, 0.35)
    for row in range(math.ceil(1 / step) + 1):
        for column in range(-1, math.ceil(canvas.aspect / step) + 1):
            canvas.ellipse((column + row % 2 / 2) * step, row * step, radius, radius, second, inked=False)


def _checker(canvas: _Canvas) -> None:
    first, second = _two_colours(canvas.rng)
    canvas.gradient(first, first)
    step = canvas.rng.uniform(0.1, 0.22)
    for row in range(math.ceil(1 / step)):
        for column in range(row % 2, math.ceil(canvas.aspect / step), 2):
            x, y = column * step, row * step
            canvas.box(x, y, x + step, y + step, second, inked=False)


def _rays(canvas: _Canvas) -> None:
    first, second = _two_colours(canvas.rng)
    canvas.gradient(first, first)
    x, y, count = (
        canvas.aspect * canvas.rng.uniform(0.35, 0.65),
        canvas.rng.uniform(0.4, 0.8),
        canvas.rng.integers(9, 18),
    )
    for ray in range(count):
        angles = [2 * math.pi * (ray + side) / count for side in (0, 0.5)]
        canvas.polygon([(x, y), *((x + 3 * math.cos(a), y + 3 * math.sin(a)) for a in angles)], second, inked=False)


def _cloud(canvas: _Canvas, x: float, y: float, size: float, tint: Colour) -> None:
    puffs = [(x + size * (i - 1.5) * 0.55, y - size * canvas.rng.uniform(0, 0.2)) for i in range(4)]
    radii = [size * canvas.rng.uniform(0.35, 0.55) for _ in puffs]
    for (px, py), radius in zip(puffs, radii, strict=True):
        canvas.ellipse(px, py, radius * 1.2, radius, tint, inked=False)


def _sky(canvas: _Canvas, top: Colour, bottom: Colour, horizon: float) -> None:
    canvas.gradient(top, bottom, 0.0, horizon + 0.02)
    if canvas.rng.random() < 0.6:
        radius = canvas.rng.uniform(0.05, 0.09)
        canvas.ellipse(canvas.rng.uniform(0.1, 0.9) * canvas.aspect, 0.2, radius, radius, (255, 233, 150))
    for _ in range(canvas.rng.integers(2, 6)):
        x, y = canvas.rng.uniform(0, canvas.aspect), canvas.rng.uniform(0.1, 0.4)
        _cloud(canvas, x, y, canvas.rng.uniform(0.07, 0.15), (250, 250, 252))


def _ridge(canvas: _Canvas, level: float, swing: float, tint: Colour) -> Callable[[float], float]:
    """A range of hills down to the lower edge; returns its height at x."""
    waves = [
        (canvas.rng.uniform(1.5, 4.5), canvas.rng.uniform(0, 6.3), swing * canvas.rng.uniform(0.3, 0.6))
        for _ in range(3)
    ]

    def height(x: float) -> float:
        return level + sum(amplitude * math.sin(pace * x + phase) for pace, phase, amplitude in waves)

    outline = [(x, height(x)) for x in np.linspace(-0.05, canvas.aspect + 0.05, 120).tolist()]
    canvas.polygon([*outline, (canvas.aspect + 0.05, 1.05), (-0.05, 1.05)], tint)
    return height


def _tree(canvas: _Canvas, x: float, y: float, size: float, leaves: Colour) -> None:
    canvas.box(x - size * 0.07, y - size * 0.4, x + size * 0.07, y, (120, 84, 60))
    if canvas.rng.random() < 0.5:
        for tier in range(3):
            top, half = y - size * (0.55 + 0.3 * tier), size * (0.36 - 0.08 * tier)
            canvas.polygon([(x - half, top + size * 0.3), (x + half, top + size * 0.3), (x, top - size * 0.1)], leaves)
    else:
        canvas.ellipse(x, y - size * 0.72, size * 0.34, size * 0.42, leaves)


def _hills_of(
    sky: float, ground: float, saturation: float, leaves: float | None, dimming: float = 0.09
) -> Callable[[_Canvas], None]:
    """Hills under a sky; hues of both and of trees, how strong the ground's colour is, and how much darker when
    near.
    """

    def paint(canvas: _Canvas) -> None:
        rng = canvas.rng
        air = sky + rng.uniform(-0.03, 0.03)
        _sky(canvas, colour(air, 0.5, 0.95), colour(air, 0.12, 1.0), 0.75)
        for layer in range(3):
            tint = colour(ground + rng.uniform(-0.03, 0.03), saturation * (0.6 + 0.2 * layer), 0.96 - dimming * layer)
            height = _ridge(canvas, 0.5 + 0.11 * layer, 0.07 - 0.02 * layer, tint)
            for _ in range(rng.integers(2, 7) if leaves is not None and layer else 0):
                x = rng.uniform(0, canvas.aspect)
                green = colour((leaves or 0) + rng.uniform(-0.05, 0.05), 0.6, rng.uniform(0.5, 0.75))
                _tree(canvas, x, height(x) + 0.02, rng.uniform(0.1, 0.16) * (0.7 + 0.3 * layer), green)

    return paint


def _beach(canvas: _Canvas) -> None:
    rng = canvas.rng
    _sky(canvas, colour(0.56, 0.5, 0.95), colour(0.54, 0.12, 1.0), 0.5)
    canvas.gradient(colour(0.56, 0.65, 0.75), colour(0.5, 0.5, 0.85), 0.48, 0.78)
    for _ in range(rng.integers(14, 26)):
        x, y, length = rng.uniform(0, canvas.aspect), rng.uniform(0.51, 0.7), rng.uniform(0.05, 0.14)
        arc = [(x + length * s, y + 0.008 * math.sin(math.pi * 2 * s)) for s in np.linspace(0, 1, 12).tolist()]
        canvas.line(arc, (225, 243, 250), 0.006)
    _ridge(canvas, 0.76, 0.02, colour(0.12, 0.35, 0.95))


def _city(canvas: _Canvas) -> None:
    rng = canvas.rng
    dusk = rng.random() < 0.4
    air = (
        (colour(0.7, 0.4, 0.6), colour(0.05, 0.4, 0.98)) if dusk else (colour(0.56, 0.45, 0.95), colour(0.55, 0.1, 1.0))
    )
    _sky(canvas, *air, 0.8)
    for layer in range(2):
        x = -0.05
        while x < canvas.aspect:
            width, top = rng.uniform(0.1, 0.22), rng.uniform(0.22, 0.5) + 0.12 * layer
            canvas.box(x, top, x + width, 0.85, colour(rng.random(), rng.uniform(0.15, 0.4), 0.62 + 0.2 * layer))
            glass = (255, 232, 160) if dusk else (215, 238, 248)
            for row in range(int((0.82 - top) / 0.06)):
                for column in range(int(width / 0.05)):
                    if rng.random() < 0.8:
                        left, upper = x + 0.02 + column * 0.05, top + 0.03 + row * 0.06
                        canvas.box(left, upper, left + 0.025, upper + 0.032, glass, inked=False)
            x += width + rng.uniform(-0.01, 0.04)
    canvas.box(-0.1, 0.8, canvas.aspect + 0.1, 1.1, (118, 118, 128))
    canvas.box(-0.1, 0.8, canvas.aspect + 0.1, 0.83, (196, 194, 190))
    for x in np.arange(0, canvas.aspect, 0.22).tolist():
        canvas.box(x, 0.91, x + 0.11, 0.925, (240, 230, 180), inked=False)


def _night(canvas: _Canvas) -> None:
    rng = canvas.rng
    hue = rng.uniform(0.6, 0.75)
    canvas.gradient(colour(hue, 0.75, 0.22), colour(hue, 0.5, 0.5))
    for _ in range(rng.integers(40, 90)):
        radius = rng.uniform(0.002, 0.006)
        canvas.ellipse(
            rng.uniform(0, canvas.aspect), rng.uniform(0, 0.65), radius, radius, (255, 250, 225), inked=False
        )
    x, radius = rng.uniform(0.15, 0.85) * canvas.aspect, rng.uniform(0.06, 0.1)
    canvas.ellipse(x, 0.22, radius, radius, (250, 243, 205), inked=False)
    for layer in range(2):
        height = _ridge(canvas, 0.62 + 0.14 * layer, 0.06, colour(hue - 0.1, 0.5, 0.36 - 0.1 * layer))
        for _ in range(rng.integers(1, 5)):
            x = rng.uniform(0, canvas.aspect)
            _tree(canvas, x, height(x) + 0.02, rng.uniform(0.12, 0.2), colour(hue - 0.15, 0.5, 0.25))


def _room(canvas: _Canvas) -> None:
    rng = canvas.rng
    wall, pattern = _two_colours(rng)
    canvas.gradient(wall, wall)
    for x in np.arange(0.0, canvas.aspect, 0.16).tolist() if rng.random() < 0.6 else []:
        canvas.box(x, 0.0, x + 0.08, 0.8, pattern, inked=False)
    wood = colour(rng.uniform(0.04, 0.1), rng.uniform(0.35, 0.6), rng.uniform(0.6, 0.85))
    canvas.box(-0.1, 0.74, canvas.aspect + 0.1, 1.1, wood)
    canvas.box(-0.1, 0.71, canvas.aspect + 0.1, 0.745, (245, 240, 232))
    for x in np.arange(-1.0, canvas.aspect + 1, 0.2).tolist():
        middle = canvas.aspect / 2
        canvas.line([(x, 0.745), (middle + (x - middle) * 1.5, 1.02)], (110, 80, 60), 0.004)
    x = rng.uniform(0.1, 0.6) * canvas.aspect
    canvas.box(x, 0.16, x + 0.36, 0.56, (250, 248, 244))
    canvas.box(x + 0.02, 0.18, x + 0.34, 0.54, (176, 222, 245))
    _cloud(canvas, x + 0.18, 0.3, 0.06, (250, 252, 254))
    canvas.box(x + 0.17, 0.18, x + 0.19, 0.54, (250, 248, 244))
    frame = x + rng.uniform(0.45, 0.6) if x < canvas.aspect / 2 else x - rng.uniform(0.3, 0.4)
    canvas.box(frame, 0.22, frame + 0.2, 0.46, (150, 110, 70))
    canvas.box(frame + 0.02, 0.24, frame + 0.18, 0.44, _any_colour(rng))
    canvas.ellipse(canvas.aspect * rng.uniform(0.35, 0.65), 0.88, 0.42, 0.07, _any_colour(rng))


def _under_water(canvas: _Canvas) -> None:
    rng = canvas.rng
    canvas.gradient(colour(0.52, 0.5, 0.9), colour(0.6, 0.7, 0.45))
    _ridge(canvas, 0.86, 0.03, colour(0.12, 0.35, 0.75))
    for _ in range(rng.integers(5, 11)):
        x, length, phase = rng.uniform(0, canvas.aspect), rng.uniform(0.15, 0.4), rng.uniform(0, 6.3)
        weed = [(x + 0.025 * math.sin(phase + 9 * s), 0.93 - length * s) for s in np.linspace(0, 1, 24).tolist()]
        canvas.line(weed, colour(rng.uniform(0.3, 0.45), 0.6, rng.uniform(0.4, 0.65)), rng.uniform(0.012, 0.025))
    for _ in range(rng.integers(10, 25)):
        radius = rng.uniform(0.006, 0.02)
        canvas.ellipse(rng.uniform(0, canvas.aspect), rng.uniform(0, 0.8), radius, radius, (205, 238, 250), inked=False)


PLAIN = {"flat": Background("a plain background", _flat), "gradient": Background("a plain background", _gradient)}
"""Backgrounds without anything in them."""

DRAWN = {
    "stripes": Background("stripes", _stripes),
    "dots": Background("dots", _dots),
    "checker": Background("a checkerboard", _checker),
    "rays": Background("rays of colour", _rays),
    "meadow": Background("green hills", _hills_of(0.56, 0.27, 0.6, leaves=0.33)),
    "autumn": Background("autumn hills", _hills_of(0.54, 0.11, 0.6, leaves=0.07)),
    "snow": Background("snowy hills", _hills_of(0.58, 0.56, 0.1, leaves=0.37, dimming=0.02)),
    "desert": Background("a desert", _hills_of(0.1, 0.09, 0.55, leaves=None)),
    "beach": Background("a beach", _beach),
    "city": Background("a city", _city),
    "night": Background("a night sky", _night),
    "room": Background("a room", _room),
    "under water": Background("the sea floor", _under_water),
}
"""Backgrounds with something to see a camera move by."""
