"""Flat areas of cel drawings in exactly the colours that the key frames have.

A painted cel has areas of one colour. A model draws them nearly so, with noise. Where a frame is flat, and one colour
of the keys is clearly the nearest, the area takes that; lines and rims keep their drawing, and are moved with the areas
beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageFilter

from tooncrafter_jax.io.cielab import lab_of_srgb
from tooncrafter_jax.io.filling import filled
from tooncrafter_jax.io.frames import Frames, each_made
from tooncrafter_jax.io.masks import grown
from tooncrafter_jax.notes import note
from tooncrafter_jax.typing import Picture

MOST_COLOURS = 96
NEAR = 9.0
"""Difference in L*a*b* up to which an area is one of the keys' colours."""
CLEARLY = 1.6
"""How many times as far the next colour must be."""
LEAST_FLAT = 0.25
"""Share of the keys that is flat in a cel drawing."""
_WINDOW = 5
"""Pixels on a side of the window in which a picture is flat or not."""
_FLAT_KEY = 1
"""Levels between the darkest and the brightest pixel of a window of a painted area in a key: shading has more."""
_APART = 3
"""Levels up to which two colours are one."""
_NOISE, _QUIET, _LOUD = 2.2, 2.0, 8.0
"""A frame is flat where the standard deviation in a window is below so many times that of most windows, and at least
and at most so many levels: a faint line on a clean ground is none.
"""
_LEAST_AREA = 1e-3
"""Share of a key that a colour of its palette covers."""
_RIM = 4
"""Pixels beside a flat area that are moved with it."""


def keys_palette(keys: Sequence[Picture]) -> UInt8[np.ndarray, "N 3"]:
    """The colours of flat areas of key frames, the most frequent first; says so if they have few."""
    flat = [_is_flat(key) for key in keys]
    share = float(np.mean([mask.mean() for mask in flat]))
    if share < LEAST_FLAT:
        note(
            f"only {100 * share:.0f} % of the key frames is flat, so their palette changes little: it is for painted "
            "cels"
        )
    pixels = np.concatenate([key[mask] for key, mask in zip(keys, flat, strict=True)])
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    colours = colours[np.argsort(-counts, kind="stable")][: (counts >= _LEAST_AREA * keys[0][..., 0].size).sum()]
    kept: list[np.ndarray] = []
    for colour in colours:
        if len(kept) < MOST_COLOURS and all(np.abs(colour.astype(int) - other).max() > _APART for other in kept):
            kept.append(colour)
    return np.stack(kept) if kept else np.zeros((0, 3), np.uint8)


def snapped_to_palette(frames: Frames, keys: Sequence[Picture]) -> Frames:
    """A clip whose flat areas have colours of the keys; a frame that is one of the keys stays as it is.

    Args:
      frames: uint8 (T, H, W, 3).
      keys: of the same size, at least one.
    """
    palette = keys_palette(keys)
    if not len(palette):
        return frames
    result = frames.copy()
    drawn = [index for index, frame in enumerate(frames) if not any(np.array_equal(frame, key) for key in keys)]
    for index, frame in each_made(lambda index: _snapped(frames[index], palette), drawn):
        result[index] = frame
    return result


def _snapped(frame: np.ndarray, palette: np.ndarray) -> np.ndarray:
    shown = frame.astype(np.float32)
    areas = _mean(shown)
    deviation = np.sqrt(np.maximum(_mean(shown**2) - areas**2, 0).max(-1))
    flat = deviation <= np.clip(_NOISE * np.median(deviation), _QUIET, _LOUD)
    number, nearest, next_one = _two_nearest(lab_of_srgb(areas[flat]), lab_of_srgb(palette))
    is_clear = (nearest <= NEAR) & (next_one >= CLEARLY * nearest)
    chosen = np.zeros(flat.shape, bool)
    chosen[flat] = is_clear
    move = np.zeros_like(shown)
    move[chosen] = palette[number[is_clear]] - areas[chosen]
    beside = grown(chosen, _RIM) & ~chosen
    moved = np.where(beside[..., None], shown + filled(move, chosen.astype(np.float32)), shown)
    moved[chosen] = palette[number[is_clear]]
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def _two_nearest(values: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each value (N, 3): number of the nearest colour (K, 3), its distance, and that of the next, if there is one.

    Colour by colour, as all distances at once are a hundred times the picture.
    """
    number = np.zeros(len(values), int)
    nearest, next_one = (np.full(len(values), np.inf, np.float32) for _ in range(2))
    for index, colour in enumerate(palette):
        distance = np.sqrt(((values - colour) ** 2).sum(-1))
        is_nearer = distance < nearest
        next_one = np.where(is_nearer, nearest, np.minimum(next_one, distance))
        number[is_nearer] = index
        nearest = np.minimum(nearest, distance)
    return number, nearest, next_one


def _is_flat(picture: np.ndarray) -> Bool[np.ndarray, "H W"]:
    image = Image.fromarray(picture)
    highest, lowest = (
        np.asarray(image.filter(rank(_WINDOW))).astype(int) for rank in (ImageFilter.MaxFilter, ImageFilter.MinFilter)
    )
    return (highest - lowest).max(-1) <= _FLAT_KEY


def _mean(values: np.ndarray) -> Float32[np.ndarray, "H W 3"]:
    """Of the window around each pixel; the picture is repeated beyond its border."""
    half = _WINDOW // 2
    for axis in (0, 1):
        pad = [(half, half) if other == axis else (0, 0) for other in range(3)]
        wide = np.pad(values, pad, mode="edge")
        length = values.shape[axis]
        values = np.mean([np.take(wide, np.arange(i, i + length), axis) for i in range(_WINDOW)], axis=0)
    return values.astype(np.float32)
