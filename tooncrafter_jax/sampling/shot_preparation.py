"""The keys and sketches of a shot as arrays: read, checked against each other, and brought to the result's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import WHITE, Colour, over
from tooncrafter_jax.io.cels import CelKeys
from tooncrafter_jax.io.frames import as_bytes
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.frame_room import Room, memory
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, tell_texts
from tooncrafter_jax.sampling.request_pictures import (
    as_picture,
    fitted,
    may_be_lines,
    name_of,
    note_cut,
    note_transparency,
    prepare_cels,
    read_hint,
    same_shape,
    tell_lines,
)
from tooncrafter_jax.sampling.sequence import MOST_VALUES, Layout, Shot, lay_out

Drawn = UInt8[np.ndarray, "H W 3"]


class PreparedShot(NamedTuple):
    """A shot as arrays.

    Attributes:
      shot: as it was asked for.
      layout: of it.
      keys: frame -> picture, of the result's size.
      hints: (gap, number of a drawing) -> its sketch (H, W, 1) in [0, 1].
      cels: the keys with their opacity, where that is kept; `keys` are those over its background.
    """

    shot: Shot
    layout: Layout
    keys: Mapping[int, Drawn]
    hints: Mapping[tuple[int, int], Float[np.ndarray, "H W 1"]]
    cels: CelKeys | None = None

    @property
    def background(self) -> Colour:
        """What transparent parts of the keys lie on."""
        return WHITE if self.cels is None else self.cels.background


def prepare_shot(shot: Shot, options: SamplingOptions, config: ModelConfig, room: Room = memory) -> PreparedShot:
    """Checks a shot, and reads and fits its pictures; says on one line each what is lost of them.

    Args:
      shot: what to make.
      options: how; must have been checked.
      config: the model's architecture.
      room: where the keys lie.

    Raises:
      UserError: as `lay_out`, or a picture cannot be read, or the keys do not line up.
    """
    layout = lay_out(shot, options)
    height, width = options.size(config)
    if layout.frames * height * width * 3 > MOST_VALUES:
        raise UserError(
            f"{layout.frames:,} frames of {width} x {height} pixels are too many for one shot: cut it into several, or "
            "choose a smaller size"
        )
    for _, _, prompt in layout.prompts:
        tell_texts(Pair("", "", prompt, negative_prompt=shot.negative_prompt), options)
    first = next(iter(layout.keys))
    shapes: dict[int, tuple[int, ...]] = {}
    keys = dict(zip(layout.keys, room((len(layout.keys), height, width, 3)), strict=True))
    cels: list[tuple[np.ndarray, str]] = []
    lines = True
    for frame, picture in layout.keys.items():
        what = f"the key on frame {frame}"
        read = as_picture(picture, what)
        shapes[frame] = read.shape[:2]
        name = name_of(picture, what)
        other = name_of(layout.keys[first], f"the key on frame {first}")
        _check_fit((name, other), (shapes[frame], shapes[first]), options, height, width)
        if options.alpha:
            cels.append((read, name))
            continue
        lines = lines and may_be_lines(read, options)
        note_transparency([read], [name], options.background)
        keys[frame][:] = as_bytes(fitted(read, name, options, height, width))
    if lines and not cels:
        tell_lines()
    found = None
    if cels:
        pictures, names = zip(*cels, strict=True)
        found = prepare_cels(pictures, names, options, height, width)
        for key, cel in zip(keys.values(), found.pictures, strict=True):
            key[:] = over(cel, found.background)
    if shot.loop:
        _check_loop(keys)
    hints = {
        place: read_hint(frame, sketch, shapes[layout.gaps[place[0]].first], height, width, options.fit)[0]
        for place, (frame, sketch) in layout.sketches.items()
    }
    return PreparedShot(shot, layout, keys, hints, found)


def _check_fit(
    names: tuple[str, str],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    options: SamplingOptions,
    height: int,
    width: int,
) -> None:
    """Says how a key is brought to the result's size.

    Args:
      names: of the key, and of the first one.
      shapes: (height, width) of both.
      options: how keys are fitted.
      height: of the result, in pixels.
      width: of the result, in pixels.

    Raises:
      UserError: their shapes differ, and it is not said what to do.
    """
    name, other = names
    sizes = [f"{shape[1]} x {shape[0]}" for shape in shapes]
    if options.fit is None and not same_shape(*shapes):
        raise UserError(
            f"{name} is {sizes[0]} pixels, {other} {sizes[1]}: the keys have different shapes and cannot line up, so "
            "crop them, or say what to do by the option fit, crop or pad"
        )
    if shapes[0] != shapes[1]:
        note(f"{name} is {sizes[0]} pixels, {other} {sizes[1]}: both are brought to {width} x {height}")
    if options.fit != "pad":
        note_cut(name, shapes[0], height, width)


def _check_loop(keys: Mapping[int, Drawn]) -> None:
    first, last = min(keys), max(keys)
    if not np.array_equal(keys[first], keys[last]):
        raise UserError(
            f"a loop ends with its first key, but the key on frame {last} is another picture than that on frame "
            f"{first}: give the first key once more, on the frame where the loop starts over"
        )
