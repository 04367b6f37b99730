"""The pictures of a request: read, checked against each other, and brought to the model's size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tooncrafter_jax.config_codec import plain
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import (
    BLACK,
    WHITE,
    SketchSheet,
    cut_of,
    fit_image,
    over,
    picture_of_image,
    read_picture,
    read_sheet,
    sketch_to_hint,
)
from tooncrafter_jax.io.backgrounds import AUTO
from tooncrafter_jax.io.cels import CelKeys, cel_keys, check_is_cel, is_transparent
from tooncrafter_jax.io.fitting import fit_cel
from tooncrafter_jax.io.frames import as_bytes, in_range
from tooncrafter_jax.io.line_drawings import as_line_drawing, grey_cels, looks_like_lines
from tooncrafter_jax.io.timesheets import PlacedCel
from tooncrafter_jax.notes import note, remark
from tooncrafter_jax.sampling.sampling_options import Fit, SamplingOptions

Picture = str | os.PathLike[str] | np.ndarray | Image.Image
"""A path, uint8 (H, W, 3), or (H, W, 4) with opacity, or a Pillow image."""

MAX_ASPECT_DIFFERENCE = 0.02
"""How far two pictures' width/height may be from each other, relatively, before they cannot line up."""
LEAST_CUT = 0.005
"""Share of a picture that may be cut off without a word: a pixel or two of rounding."""


@dataclass(frozen=True)
class Sketch:
    """A drawing that guides one frame.

    Attributes:
      image: path, uint8 array or Pillow image.
      dark_lines: whether lines are darker than the paper; False for bright lines on black; None: as the picture shows.
      may_be_blank: whether a sheet without lines is meant, as of a program that draws sketches of whole clips.
    """

    image: Picture
    dark_lines: bool | None = None
    may_be_blank: bool = False


Series = Sequence[Sketch | Picture] | UInt8[np.ndarray, "series series_height series_width C"]
"""A drawing for each frame."""
Sketches = Mapping[int, Sketch | Picture] | Series
"""Frame number -> drawing, or a drawing for each frame, of which some may be blank."""


def sketches_by_frame(sketches: Sketches | None) -> Mapping[int, Sketch | Picture]:
    """Frame number -> drawing; of a list, all may be blank."""
    if sketches is None or isinstance(sketches, Mapping):
        return sketches or {}
    found = [sketch if isinstance(sketch, Sketch) else Sketch(sketch) for sketch in sketches]
    return {frame: replace(sketch, may_be_blank=True) for frame, sketch in enumerate(found)}


def as_picture(picture: Picture, what: str) -> UInt8[np.ndarray, "H W C"]:
    """A picture of any accepted kind as uint8 (H, W, 3), or (H, W, 4) if it has transparency.

    Raises:
      UserError: if it cannot be read or has another shape or dtype; `what` names it.
    """
    if isinstance(picture, PlacedCel):
        return picture.read()
    if isinstance(picture, str | os.PathLike):
        return read_picture(picture)
    if isinstance(picture, Image.Image):
        return picture_of_image(picture, what)
    try:
        array = np.asarray(picture)
    except (TypeError, ValueError, RuntimeError) as error:  # what is no array says so in any of these ways
        raise UserError(
            f"{what} must be uint8 (H, W, 3) or (H, W, 4), a Pillow image or a path, not {type(picture).__name__}"
        ) from error
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (3, 4):
        raise UserError(
            f"{what} must be uint8 (H, W, 3) or (H, W, 4), a Pillow image or a path, not {array.dtype} {array.shape}"
        )
    return array


def as_rgb(picture: Picture, what: str) -> UInt8[np.ndarray, "H W 3"]:
    """`as_picture`, as uint8 (H, W, 3); transparent pixels become white."""
    return over(as_picture(picture, what), WHITE)


class PreparedPictures(NamedTuple):
    """The pictures of one clip as arrays.

    Attributes:
      ends: (2, H, W, 3) in [-1, 1].
      hints: (T, H, W, 1) in [0, 1], or None without sketches.
      cels: the ends with their opacity, where that is kept.
    """

    ends: np.ndarray
    hints: np.ndarray | None
    cels: CelKeys | None


def prepare_pictures(
    first: Picture,
    last: Picture | None,
    sketches: Sketches | None,
    *,
    options: SamplingOptions,
    height: int,
    width: int,
) -> PreparedPictures:
    """Reads and fits the pictures of one clip; says on one line each what is cut off, what becomes of transparency, and
    how a sketch was read.

    Args:
      first: the clip's first frame.
      last: its last frame; None: the first stands for it.
      sketches: of some of its frames.
      options: its length, how pictures are fitted, and what becomes of their transparency.
      height: of the clip, in pixels.
      width: of the clip, in pixels.

    Raises:
      UserError: a picture cannot be read, they do not line up, or there is no transparency to keep.
    """
    fit = options.fit
    both = [(first, "the first picture"), (first, "the first picture") if last is None else (last, "the last picture")]
    names = [name_of(*one) for one in both]
    pictures = [as_picture(*one) for one in both]
    shapes = [picture.shape[:2] for picture in pictures]
    if fit is None and not same_shape(*shapes):
        raise UserError(
            f"{names[0]} is {shapes[0][1]} x {shapes[0][0]} pixels, {names[1]} {shapes[1][1]} x {shapes[1][0]}: they "
            "have different shapes and cannot line up, so crop one of them, or say what to do by the option fit, crop "
            "or pad"
        )
    if fit != "pad":
        for name, shape in zip(names, shapes, strict=True):
            note_cut(name, shape, height, width)
    if all(may_be_lines(picture, options) for picture in pictures):
        tell_lines()
    cels = None
    if options.alpha:
        cels = prepare_cels(pictures, names, options, height, width)
        ends = cels.over(cels.background)
    else:
        note_transparency(pictures, names, options.background)
        ends = np.stack(
            [fitted(picture, name, options, height, width) for picture, name in zip(pictures, names, strict=True)]
        )
    drawings = sketches_by_frame(sketches)
    if not drawings:
        return PreparedPictures(ends, None, cels)
    hints, sheets = np.zeros((options.frames, height, width, 1), np.float32), {}
    for frame, sketch in drawings.items():
        number = frame_number(frame, options.frames)
        hints[number], sheets[number] = read_hint(number, sketch, shapes[0], height, width, fit)
    if not isinstance(sketches, Mapping):
        _tell_series(sheets)
    return PreparedPictures(ends, hints, cels)


def fitted(
    picture: UInt8[np.ndarray, "_ _ _"], name: str, options: SamplingOptions, height: int, width: int
) -> Float[np.ndarray, "H W 3"]:
    """A picture without opacity at the clip's size, in [-1, 1]: over the background, and a line drawing if that is
    asked for.

    Raises:
      UserError: it should be a line drawing, and is none; `name` names it.
    """
    opaque = over(picture, options.paper)
    if options.lines:
        opaque = as_line_drawing(opaque, name)
    return fit_image(opaque, height, width, options.chosen_fit, options.paper)


def prepare_cels(
    pictures: Sequence[UInt8[np.ndarray, "_ _ _"]],
    names: Sequence[str],
    options: SamplingOptions,
    height: int,
    width: int,
) -> CelKeys:
    """Keys whose opacity is kept, at the clip's size; grey if they are line drawings, which white suits as background.

    Raises:
      UserError: as of `cel_keys`.
    """
    if options.lines:
        pictures = [grey_cels(one[None])[0] if one.shape[2] == 4 else one for one in pictures]
    return cel_keys(
        pictures,
        names,
        height,
        width,
        fit=options.chosen_fit,
        background=options.background or AUTO,
        preferred=WHITE if options.lines else None,
        two_backgrounds=options.two_backgrounds,
    )


def may_be_lines(picture: UInt8[np.ndarray, "_ _ _"], options: SamplingOptions) -> bool:
    """Whether a picture looks like a line drawing, and the options say nothing of that."""
    unsaid = not options.lines and not options.alpha and options.background is None
    return unsaid and looks_like_lines(over(picture, WHITE))


def tell_lines() -> None:
    """Says that all pictures may be line drawings."""
    remark("the pictures look like line drawings: the option lines keeps their paper white and their lines grey")


def prepare_draft(
    draft: Sequence[Picture] | UInt8[np.ndarray, "drawn drawn_height drawn_width 3"],
    first: Picture,
    options: SamplingOptions,
    height: int,
    width: int,
    cels: CelKeys | None = None,
) -> Float[np.ndarray, "T H W 3"]:
    """Reads and fits a rough version of a clip, in [-1, 1].

    Args:
      draft: its frames.
      first: the clip's first frame, whose shape they must have where no fit is chosen.
      options: how pictures are fitted, and what is below their transparency.
      height: of the clip, in pixels.
      width: of the clip, in pixels.
      cels: the clip's keys where opacity is kept, over whose background the draft is put.

    Raises:
      UserError: a picture cannot be read, does not line up, or has no transparency where the clip's keys have.
    """
    shape = as_rgb(first, "the first picture").shape[:2]
    frames = []
    for number, picture in enumerate(draft):
        name = name_of(picture, f"picture {number} of the draft")
        array = as_picture(picture, name)
        if options.fit is None and not same_shape(shape, array.shape[:2]):
            raise UserError(
                f"{name} is {array.shape[1]} x {array.shape[0]} pixels, the first picture {shape[1]} x {shape[0]}: "
                "they have different shapes and cannot line up, so crop it, or say what to do by the option fit, crop "
                "or pad"
            )
        if cels is None:
            frames.append(fitted(array, name, options, height, width))
        else:
            check_is_cel(array, name)
            frames.append(in_range(over(fit_cel(array, height, width, options.chosen_fit), cels.background)))
    return np.stack(frames)


def check_sketches(sketches: object, frames: int) -> None:
    """Raises UserError unless this is None, a mapping of a clip's frame numbers, or a list as long as the clip."""
    if sketches is None:
        return
    is_picture = isinstance(sketches, str | bytes) or (isinstance(sketches, np.ndarray) and sketches.ndim < 4)
    if isinstance(sketches, Sequence | np.ndarray) and not is_picture:
        if len(sketches) != frames:
            raise UserError(
                f"there are {len(sketches)} sketches for the {frames} frames of the clip: give one for each, blank "
                "where nothing is drawn, or choose the number of frames"
            )
        return
    if not isinstance(sketches, Mapping):
        raise UserError(
            "sketches must be a mapping of frame numbers to drawings, such as {7: drawing}, "
            f"or a list with one for each frame, not {type(sketches).__name__}"
        )
    for frame in sketches:
        frame_number(frame, frames)


def frame_number(frame: object, frames: int) -> int:
    """The number of a sketch's frame.

    Raises:
      UserError: the clip has no such frame.
    """
    number = whole_number(frame, "the frame of a sketch")
    if not 0 <= number < frames:
        raise UserError(f"there is no frame {number} for a sketch: frames are numbered 0 to {frames - 1}")
    return number


def whole_number(value: object, what: str) -> int:
    """A whole number of Python's or numpy's.

    Raises:
      UserError: it is none; `what` names it.
    """
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{what} must be a whole number, not {value!r}")
    return value


def has_dark_lines(sketch: Sketch) -> bool:
    """The polarity that a sketch is read with; True where it cannot be read, which is said where it is used."""
    if sketch.dark_lines is not None:
        return sketch.dark_lines
    try:
        return read_sheet(as_picture(sketch.image, "the sketch")).dark_lines
    except UserError:
        return True


def name_of(picture: Picture, what: str) -> str:
    """What sentences call a picture: its path, else `what`."""
    return f"'{os.fspath(picture)}'" if isinstance(picture, str | os.PathLike) else what


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two pictures (height, width) have the same shape, if not the same size."""
    return abs((one[1] / one[0]) / (other[1] / other[0]) - 1) <= MAX_ASPECT_DIFFERENCE


def note_cut(name: str, shape: tuple[int, ...], height: int, width: int) -> None:
    """Says on one line what "crop" cuts off a picture of a shape (height, width), or leaves black, if anything."""
    cut = cut_of(shape[0], shape[1], height, width)
    changes = [
        f"loses {100 * share:.0f} % of its {side}"
        for side, share in (("height", cut.height), ("width", cut.width))
        if share > LEAST_CUT
    ]
    if cut.bars > LEAST_CUT:
        changes.append(f"leaves {100 * cut.bars:.0f} % of the frame black")
    if changes:
        note(
            f"{name} ({shape[1]} x {shape[0]}) {' and '.join(changes)} at {width} x {height} pixels: "
            "fit=pad keeps the whole picture"
        )


def note_transparency(pictures: Sequence[np.ndarray], names: Sequence[str], background: str | None) -> None:
    """Says what becomes of transparent pixels, unless a background was chosen."""
    transparent = [name for picture, name in zip(pictures, names, strict=True) if is_transparent(picture)]
    if transparent and background is None:
        subject = " and ".join(dict.fromkeys(transparent))
        note(
            f"{subject} {'have' if len(set(transparent)) > 1 else 'has'} transparent pixels, which become white: the "
            "option alpha keeps them transparent, and background chooses another colour"
        )


def read_hint(
    frame: int, sketch: Sketch | Picture, drawing: tuple[int, ...], height: int, width: int, fit: Fit | None
) -> tuple[Float[np.ndarray, "H W 1"], SketchSheet]:
    """Reads and fits one sketch, and says how it was read.

    Args:
      frame: that it guides.
      sketch: the drawing.
      drawing: (height, width) of the pictures that it must line up with.
      height: of the result, in pixels.
      width: of the result, in pixels.
      fit: as of `SamplingOptions`.

    Returns:
      (height, width, 1) in [0, 1], and the sheet as it was read.

    Raises:
      UserError: it cannot be read, has another shape, or holds nothing.
    """
    if not isinstance(sketch, Sketch):
        sketch = Sketch(sketch)
    what = f"the sketch for frame {frame}"
    picture = as_picture(sketch.image, what)
    if not same_shape(picture.shape, drawing):
        raise UserError(
            f"{what} is {picture.shape[1]} x {picture.shape[0]} pixels, the drawings are "
            f"{drawing[1]} x {drawing[0]}: it has another shape and cannot line up with them, so crop it"
        )
    name = what if name_of(sketch.image, what) == what else f"{what}, {name_of(sketch.image, what)},"
    sheet = read_sheet(picture, plain(sketch.dark_lines), name, may_be_blank=sketch.may_be_blank)
    if not sketch.may_be_blank:  # a program knows what it draws
        _tell_sheet(name, sheet, said=sketch.dark_lines is not None)
    grey = sheet.grey
    if fit == "pad":
        paper = WHITE if sheet.dark_lines else BLACK
        fitted = fit_image(np.repeat(grey[..., None], 3, axis=2), height, width, "pad", paper)
        grey = as_bytes(fitted[..., 0])
    return sketch_to_hint(grey, height, width, sheet.dark_lines), sheet


def _tell_series(sheets: Mapping[int, SketchSheet]) -> None:
    """Says how the sketches of all frames were read.

    Raises:
      UserError: all are blank.
    """
    blank = [frame for frame, sheet in sheets.items() if not sheet.ink]
    bright = [frame for frame, sheet in sheets.items() if sheet.ink and not sheet.dark_lines]
    if len(blank) == len(sheets):
        raise UserError("all sketches are blank, so there is nothing to colour: draw darker, or give others")
    if blank:
        note(f"the sketches for frames {', '.join(map(str, blank))} are blank: nothing guides these")
    if bright and len(bright) < len(sheets) - len(blank):
        frames = ", ".join(map(str, bright))
        note(f"the sketches for frames {frames} are read as bright lines on dark paper, the others as dark on bright")
    elif bright:
        note("the sketches are read as bright lines on dark paper")
    else:
        inks = [100 * sheet.ink for sheet in sheets.values() if sheet.ink]
        remark(f"the sketches have dark lines on bright paper: {min(inks):.2g} to {max(inks):.2g} % of each is ink")


def _tell_sheet(name: str, sheet: SketchSheet, said: bool) -> None:
    lines, paper = ("dark", "bright") if sheet.dark_lines else ("bright", "dark")
    ink = f"{100 * sheet.ink:.2g} % of it is ink"
    if said and sheet.recognised not in (None, sheet.dark_lines):
        note(f"{name} was said to have {lines} lines, but looks like {paper} lines on {lines} paper: {ink}")
    elif not said and not sheet.dark_lines:
        note(f"{name} is read as bright lines on dark paper: {ink}")
    else:
        remark(f"{name} has {lines} lines on {paper} paper: {ink}")
