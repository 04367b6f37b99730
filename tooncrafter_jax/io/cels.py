"""Cels: drawings with opacity, drawn over a known background and taken off it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.backgrounds import (
    AUTO,
    FAR,
    FAR_ENOUGH,
    NEAR,
    SEEN,
    colour_named,
    colours_of,
    farthest_background,
    hex_of,
    nearness,
)
from tooncrafter_jax.io.fitting import fit_cel
from tooncrafter_jax.io.frames import Cels, Frames, each_made, in_range
from tooncrafter_jax.io.mattes import drawn_colours, matte, matte_of_two
from tooncrafter_jax.io.sizes import Colour
from tooncrafter_jax.io.transparency import over
from tooncrafter_jax.notes import note, remark


@dataclass(frozen=True)
class CelKeys:
    """The key frames of a clip or a shot with opacity, and what the frames between are drawn over.

    Attributes:
      pictures: in order, at the size of the clip; where that is theirs, as they were given.
      background: of the drawing.
      second: of the same drawing made again, to tell its opacity from both; None: it is made once.
    """

    pictures: tuple[UInt8[np.ndarray, "H W 4"], ...]
    background: Colour
    second: Colour | None = None

    def over(self, background: Colour) -> Float32[np.ndarray, "keys H W 3"]:
        """The keys over a background, in [-1, 1]."""
        return np.stack([in_range(over(key, background)) for key in self.pictures])

    def recovered(self, frames: Frames, again: Frames | None = None, places: Mapping[int, int] | None = None) -> Cels:
        """The clip with opacity: its keys themselves, and between them what was drawn.

        Args:
          frames: over `background`, the keys among them.
          again: the same over `second`.
          places: frame -> number of the key that it is; by default the first and the last frame are the only keys.
        """
        known = drawn_colours(self.pictures)
        keys = {0: 0, len(frames) - 1: len(self.pictures) - 1} if places is None else places
        cels = np.empty((*frames.shape[:3], 4), np.uint8)

        def recovered(index: int) -> np.ndarray:
            if again is None or self.second is None:
                return matte(frames[index], self.background, known)
            return matte_of_two(frames[index], again[index], self.background, self.second, known)

        def is_held(index: int) -> bool:
            before = index > 0 and index - 1 not in keys and again is None
            return before and np.array_equal(frames[index], frames[index - 1])

        drawn = [index for index in range(len(frames)) if index not in keys]
        held = {index for index in drawn if is_held(index)}
        for index, cel in each_made(recovered, [index for index in drawn if index not in held]):
            cels[index] = cel
        for index in sorted(held):
            cels[index] = cels[index - 1]
        for index, number in keys.items():
            cels[index] = self.pictures[number]
        return cels


def cel_keys(
    pictures: Sequence[UInt8[np.ndarray, "_ _ _"]],
    names: Sequence[str],
    height: int,
    width: int,
    *,
    fit: str = "crop",
    background: str = AUTO,
    preferred: Colour | None = None,
    two_backgrounds: bool = False,
) -> CelKeys:
    """Key frames with opacity, and a background that is far from their colours; says on one line which.

    Args:
      pictures: the keys, (H, W, 4), at least one.
      names: of each, for messages.
      height: of the clip, in pixels.
      width: of the clip, in pixels.
      fit: as of `fit_cel`.
      background: `AUTO`, or a colour as of `colour_named`.
      preferred: what `AUTO` is, if it is far enough from the drawing's colours.
      two_backgrounds: whether a second one is chosen.

    Raises:
      UserError: a key has no transparency or nothing else, the background is none, or one of the drawing's colours.
    """
    for picture, name in zip(pictures, names, strict=True):
        check_is_cel(picture, name)
    keys = tuple(fit_cel(picture, height, width, fit) for picture in pictures)
    for key, name in zip(keys, names, strict=True):
        if not (key[..., 3] >= SEEN).any():
            raise UserError(f"{name} has nothing but transparency at {width} x {height} pixels: draw larger")
    colours = np.unique(np.concatenate([colours_of(key) for key in keys]), axis=0)
    if background == AUTO:
        distance = 0.0 if preferred is None else nearness(colours, preferred)
        if preferred is not None and distance >= FAR_ENOUGH:
            chosen = preferred
        else:
            chosen, distance = farthest_background(colours)
        if distance < FAR:
            note(
                f"the drawing has so many colours that the farthest background, {hex_of(chosen)}, is only "
                f"{distance:.0f} from one of them (in CIELAB): its opacity may be wrong there"
            )
        remark(f"the frames between are drawn over {hex_of(chosen)}, and taken off it again")
    else:
        chosen = colour_named(background)
        distance = nearness(colours, chosen)
        if distance < NEAR:
            farther, _ = farthest_background(colours)
            raise UserError(
                f"the background {hex_of(chosen)} is a colour of the drawing ({distance:.1f} from it in CIELAB), so "
                f"what is transparent could not be told from what is drawn: choose auto, or {hex_of(farther)}"
            )
    second = farthest_background(colours, apart_from=chosen)[0] if two_backgrounds else None
    return CelKeys(keys, chosen, second)


def is_transparent(picture: UInt8[np.ndarray, "H W C"]) -> bool:
    """Whether any pixel of a picture is not quite opaque."""
    return picture.shape[2] == 4 and bool((picture[..., 3] < 255).any())


def check_is_cel(picture: UInt8[np.ndarray, "H W C"], name: str) -> None:
    """Raises UserError for a picture without transparency, or with nothing else; `name` is what messages call it."""
    if not is_transparent(picture):
        raise UserError(
            f"{name} has no transparent pixels, so there is no opacity to keep: save it with transparency, or leave "
            "alpha out"
        )
    if not (picture[..., 3] >= SEEN).any():
        raise UserError(f"{name} is transparent everywhere: there is nothing to draw from")
