"""Opacity and colours of what was drawn over a known background.

A frame F over a background B shows F = a C + (1 - a) B, in sRGB as it is stored, as `transparency.over` puts it there.
Of one frame, a and C are not determined; what is known besides is the background, which is far from all colours of the
drawing, and the drawing itself in the key frames:

- What is like the background is transparent, and what has no background near it opaque, unless the keys have areas that
  are half transparent.
- Models blur rims. What the background leads to, pixel by pixel, is half transparent for as long as it is rather a
  known colour before the background than any opaque one.
- At a rim, C is a colour from further in, or else one of the keys', and a says how far F is on the way from B to it: of
  all these colours, the one whose way comes nearest to F (Ruzon and Tomasi, "Alpha estimation in natural images", CVPR
  2000, have this for distributions of colours).

Over two backgrounds both are determined (Smith and Blinn, "Blue screen matting", SIGGRAPH 1996, theorem 4):
1 - a = (F1 - F2) (B1 - B2) / |B1 - B2|^2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from tooncrafter_jax.io.backgrounds import SEEN
from tooncrafter_jax.io.filling import filled
from tooncrafter_jax.io.masks import grown
from tooncrafter_jax.io.sizes import Colour
from tooncrafter_jax.typing import Picture

OPAQUE = 250
"""Opacity of the keys, of 255, from which on a pixel counts as opaque."""
RIM = 2
"""Pixels from the background within which a pixel may be half transparent by antialiasing."""
BLUR = 1 / 16
"""Of the shorter side: how far from the background a model's rims may still be mixed with it."""
VEIL = 0.6
"""Opacity up to which a pixel is nearer to the background than to the drawing, so that it is no colour of the drawing
that the keys do not have, wherever it is.
"""
LEAST, MOST = 0.02, 0.98
"""Opacity below and above which noise is all that makes the difference from none and all."""
_COLOURS, _SOFT_COLOURS, _SHADES = 48, 16, 2048
_QUIET, _LOUD = 2.0, 40.0
"""Levels of 255 within which a pixel is the background: of exact frames, and at most."""
_DRIFT = 60.0
"""Levels by which a model may draw the background in another colour than it was given."""
_OF_KEYS = 4.0
"""Levels that a colour of the keys must come nearer than one from close by."""
_SOFTER = 6.0
"""Levels that a half transparent colour must come nearer than an opaque one, away from the background."""
_DISAGREEMENT = 0.07
"""Difference of two frames that their backgrounds do not explain, as a share of that of the backgrounds, where the
drawing itself is another.
"""
_AT_A_TIME = 8192
"""Pixels whose distances from all colours are in memory."""
_SHIFTS = [(y, x) for y in (-3, -2, -1, 0, 1, 2, 3) for x in (-3, -2, -1, 0, 1, 2, 3) if max(abs(y), abs(x)) in (1, 3)]


@dataclass(frozen=True)
class DrawnColours:
    """What key frames tell of a drawing.

    Attributes:
      colours: straight colours, 0 to 255, of opaque parts and of areas that are half transparent.
      most: the largest opacity that each was seen with; 1 of opaque parts.
      shades: of opaque parts in finer steps, all that there are.
    """

    colours: Float32[np.ndarray, "K 3"]
    most: Float32[np.ndarray, "K"]
    shades: Float32[np.ndarray, "N 3"]

    @property
    def is_soft(self) -> Bool[np.ndarray, "K"]:
        """Which are of areas that are half transparent."""
        return self.most < 1


def drawn_colours(keys: Sequence[UInt8[np.ndarray, "H W 4"]]) -> DrawnColours:
    """The colours of key frames with opacity."""
    solid, soft = [], []
    for key in keys:
        alpha = key[..., 3]
        inside = ~grown(alpha < SEEN, RIM)
        solid.append(key[alpha >= OPAQUE])
        soft.append(key[inside & (alpha >= SEEN) & ~grown(alpha >= OPAQUE, RIM)])
    opaque = _palette(np.concatenate(solid)[:, :3], _COLOURS)
    faint = np.concatenate(soft)
    if not len(faint) and not len(opaque):  # thin lines alone, or a drawing that is half transparent throughout
        faint = np.concatenate([key[key[..., 3] >= SEEN] for key in keys])
    colours = _palette(faint[:, :3], _SOFT_COLOURS)
    most = np.ones(len(colours), np.float32)
    if len(colours):
        nearest = ((faint[:, None, :3].astype(np.float32) - colours) ** 2).sum(-1).argmin(-1)
        for index in range(len(colours)):
            own = faint[nearest == index, 3]
            most[index] = min(0.999, np.quantile(own, 0.99) / 255) if len(own) else 0.999
    ones, shades = np.ones(len(opaque), np.float32), _shades(np.concatenate(solid)[:, :3])
    return DrawnColours(np.concatenate([opaque, colours]), np.concatenate([ones, most]), shades)


def matte(frame: Picture, background: Colour, known: DrawnColours) -> UInt8[np.ndarray, "H W 4"]:
    """A frame with opacity, from one over a background.

    Args:
      frame: uint8 (H, W, 3).
      background: what was drawn over; the frame may show it in another colour, if not by much.
      known: of the drawing's key frames.

    Returns:
      uint8 (H, W, 4), by which colours are not multiplied. What is transparent has the colour of the drawing beside it.
    """
    shown = frame.astype(np.float32)
    behind, is_behind = _found_background(shown, background)
    alpha, colours = _opacity(shown, behind, is_behind, known)
    return _cel(shown, behind, alpha, colours)


def matte_of_two(
    frame: Picture, other: Picture, background: Colour, other_background: Colour, known: DrawnColours
) -> UInt8[np.ndarray, "H W 4"]:
    """A frame with opacity, from one over each of two backgrounds.

    Where the two frames differ in more than the background, as those of a model may, it is `matte` of the first.

    Args:
      frame: uint8 (H, W, 3), over `background`.
      other: the same over `other_background`.
      background: of the first frame.
      other_background: of the second.
      known: of the drawing's key frames.

    Returns:
      As of `matte`.
    """
    one, two = frame.astype(np.float32), other.astype(np.float32)
    behind_one, is_behind = _found_background(one, background)
    behind_two, _ = _found_background(two, other_background)
    alone, colours = _opacity(one, behind_one, is_behind, known)
    apart = behind_one - behind_two
    through = ((one - two) * apart).sum(-1) / np.maximum((apart**2).sum(-1), 1)
    through = np.clip(through, 0, 1)
    unexplained = np.sqrt(((one - two - through[..., None] * apart) ** 2).sum(-1))
    agree = unexplained <= _DISAGREEMENT * np.sqrt((apart**2).sum(-1))
    alpha = np.where(agree, 1 - through, alone).astype(np.float32)
    return _cel(one, behind_one, _snapped(alpha), colours)


def _opacity(
    shown: np.ndarray, behind: np.ndarray, is_behind: np.ndarray, known: DrawnColours
) -> tuple[np.ndarray, np.ndarray]:
    """Opacity (H, W) from 0 to 1, and the colour (H, W, 3) that each pixel of the rim was taken to have."""
    alpha = np.where(is_behind, 0, 1).astype(np.float32)
    colours = shown.copy()
    near = grown(is_behind, RIM)
    reach = max(RIM, round(BLUR * min(is_behind.shape)))
    wide = grown(is_behind, reach)
    blurred, own, theirs = _mixed_parts(shown, behind, ~is_behind, known, np.ones_like(known.is_soft))
    blurred = (_reached(is_behind, blurred & wide, reach) | (blurred & (own < VEIL))) & ~near
    mixed = blurred
    alpha[blurred], colours[blurred] = own[blurred], theirs[blurred]
    if known.is_soft.any():
        faint, own, theirs = _mixed_parts(shown, behind, ~wide, known, known.is_soft)
        alpha[faint], colours[faint] = own[faint], theirs[faint]
        mixed = mixed | faint
    inside = ~near & ~mixed
    gaps = filled(shown, inside.astype(np.float32))
    for rows, columns in _some_at_a_time(near & ~is_behind):
        pixel, base = shown[rows, columns], behind[rows, columns]
        nearby = _colours_near(shown, inside, gaps, rows, columns)
        candidates = np.concatenate([nearby, _each(known.colours, len(rows))], 1)
        caps = np.concatenate([np.ones(nearby.shape[1], np.float32), known.most])
        handicap = np.where(np.arange(len(caps)) < nearby.shape[1], 0, _OF_KEYS)
        share, distance = _on_the_way(pixel, base, candidates, caps)
        best = np.argmin(distance + handicap, axis=1)[:, None]
        alpha[rows, columns] = np.take_along_axis(share, best, 1)[:, 0]
        colours[rows, columns] = np.take_along_axis(candidates, best[..., None], 1)[:, 0]
    return _snapped(alpha), colours


def _mixed_parts(
    shown: np.ndarray, behind: np.ndarray, where: np.ndarray, known: DrawnColours, of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where pixels are rather some of the known colours before the background than any opaque one; opacity, colours."""
    mixed, alpha, colours = np.zeros_like(where), np.ones(where.shape, np.float32), shown.copy()
    for rows, columns in _some_at_a_time(where):
        for opaques in (known.colours[~known.is_soft], known.shades):  # few settle most pixels
            opaque = _from_nearest(shown[rows, columns], opaques)
            rows, columns, opaque = (values[opaque > _SOFTER] for values in (rows, columns, opaque))
        if not len(rows):
            continue
        pixel, candidates = shown[rows, columns], _each(known.colours[of], len(rows))
        share, distance = _on_the_way(pixel, behind[rows, columns], candidates, known.most[of])
        best = distance.argmin(1)[:, None]
        mixed[rows, columns] = np.take_along_axis(distance, best, 1)[:, 0] + _SOFTER < opaque
        alpha[rows, columns] = np.take_along_axis(share, best, 1)[:, 0]
        colours[rows, columns] = known.colours[of][best[:, 0]]
    return mixed, alpha, colours


def _some_at_a_time(mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of a mask's pixels, so few at once that all of their colours' distances fit into memory."""
    rows, columns = np.nonzero(mask)
    for start in range(0, len(rows), _AT_A_TIME):
        yield rows[start : start + _AT_A_TIME], columns[start : start + _AT_A_TIME]


def _from_nearest(pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Distance of each pixel (N, 3) from the nearest colour (K, 3); infinite where there are none."""
    if not len(colours):
        return np.full(len(pixels), np.inf, np.float32)
    nearest = ((colours**2).sum(-1) - 2 * pixels @ colours.T).min(1) + (pixels**2).sum(-1)
    return np.sqrt(np.maximum(nearest, 0))


def _reached(start: np.ndarray, through: np.ndarray, steps: int) -> np.ndarray:
    """What can be reached from a mask in so many steps without leaving another."""
    reached = start
    for _ in range(steps):
        reached = start | (grown(reached, 1) & through)
    return reached & ~start


def _on_the_way(
    pixel: np.ndarray, base: np.ndarray, candidates: np.ndarray, caps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far pixels (N, 3) are on the way from the background to candidates (N, K, 3), and how far off it."""
    way, gone = candidates - base[:, None], (pixel - base)[:, None]
    share = (way * gone).sum(-1) / np.maximum((way**2).sum(-1), 1)
    share = np.clip(share, 0, caps)
    return share, np.sqrt(((gone - share[..., None] * way) ** 2).sum(-1))


def _colours_near(
    shown: np.ndarray, solid: np.ndarray, gaps: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Colours (N, K, 3) of opaque pixels within a few pixels, and of what fills their gaps (H, W, 3)."""
    gaps = gaps[rows, columns]
    height, width = solid.shape
    found = []
    for down, right in _SHIFTS:
        y, x = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        found.append(np.where(solid[y, x][:, None], shown[y, x], gaps))
    return np.stack([gaps, *found], axis=1)


def _found_background(shown: np.ndarray, background: Colour) -> tuple[np.ndarray, np.ndarray]:
    """The background as the frame shows it (H, W, 3), also behind the drawing, and where nothing is before it."""
    given = np.array(background, np.float32)
    distance = np.sqrt(((shown - given) ** 2).sum(-1))
    close = distance < _DRIFT
    if close.any():
        given = np.median(shown[close], axis=0)
        distance = np.sqrt(((shown - given) ** 2).sum(-1))
    noise = float(np.median(distance[distance < _DRIFT])) if (distance < _DRIFT).any() else 0.0
    is_behind = distance <= min(_LOUD, _QUIET + 4 * noise)
    if not is_behind.any():
        return np.broadcast_to(given, shown.shape), is_behind
    return filled(shown, is_behind.astype(np.float32)), is_behind


def _cel(shown: np.ndarray, behind: np.ndarray, alpha: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colours that show the frame again over its background; where little shows, those that were assumed."""
    opacity = alpha[..., None]
    unmixed = np.clip(behind + (shown - behind) / np.maximum(opacity, LEAST), 0, 255)
    straight = opacity * unmixed + (1 - opacity) * colours
    straight = np.where(opacity > 0, straight, filled(straight.astype(np.float32), alpha))
    return np.round(np.concatenate([straight, 255 * opacity], axis=-1)).astype(np.uint8)


def _snapped(alpha: np.ndarray) -> np.ndarray:
    return np.where(alpha < LEAST, 0, np.where(alpha > MOST, 1, alpha)).astype(np.float32)


def _palette(colours: np.ndarray, count: int) -> np.ndarray:
    """A few colours (K, 3) that stand for all (N, 3)."""
    if not len(colours):
        return np.zeros((0, 3), np.float32)
    image = Image.fromarray(np.ascontiguousarray(colours[None])).quantize(count, method=Image.Quantize.MAXCOVERAGE)
    used = np.unique(np.asarray(image))
    return np.asarray(image.getpalette(), np.float32).reshape(-1, 3)[used]


def _shades(colours: np.ndarray) -> np.ndarray:
    """The different colours (K, 3) among many (N, 3), in steps of 8 levels; of too many the most frequent."""
    values, counts = np.unique(
        (colours.astype(np.uint32) >> 3) @ np.array([1 << 10, 1 << 5, 1], np.uint32), return_counts=True
    )
    values = values[np.argsort(-counts, kind="stable")][:_SHADES]
    return np.stack([values >> 10, (values >> 5) & 31, values & 31], axis=-1).astype(np.float32) * 8 + 3.5


def _each(colours: np.ndarray, count: int) -> np.ndarray:
    return np.broadcast_to(colours, (count, *colours.shape))
