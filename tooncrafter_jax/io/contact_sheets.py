"""All frames of a clip on one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.blending import cross_fade
from tooncrafter_jax.io.encoding import encode_png
from tooncrafter_jax.io.formats.output_format import FormatOptions, OneFile
from tooncrafter_jax.io.frames import AnyFrames, Path, Rate, check_frames
from tooncrafter_jax.io.transparency import over_checks

COMPARISON_COLUMNS = 8
"""Frames in a row of a contact sheet that has the cross-fade below each row."""


class SheetOfCandidates(OneFile):
    """A sheet that was made already, in the place of a format: the only frame of what is written."""

    name = "candidates"
    endings = ("png",)
    has_alpha = True

    def file_name(self, clip: str, ending: str | None = None) -> str:
        """As no clip of another format is called."""
        return super().file_name(f"{clip}_candidates", ending)

    def write(self, path: Path, frames: AnyFrames, fps: Rate, options: FormatOptions) -> None:
        """Writes the first frame as PNG."""
        del fps, options
        write_atomically(path, encode_png(Image.fromarray(frames[0])))


class ContactSheet(OneFile):
    """A contact sheet in the place of a format (`formats.OutputFormat`): each frame with its number.

    Attributes:
      cross_fade: whether it shows, below the frames, the cross-fade between the first and the last of them.
    """

    name = "contact_sheet"
    endings = ("png",)
    has_alpha = True

    def __init__(self, cross_fade: bool = False) -> None:
        self.cross_fade = cross_fade

    def file_name(self, clip: str, ending: str | None = None) -> str:
        """As no clip of another format is called."""
        return super().file_name(f"{clip}_sheet", ending)

    def write(self, path: Path, frames: AnyFrames, fps: Rate, options: FormatOptions) -> None:
        """See `write_contact_sheet` and `write_comparison_sheet`."""
        del fps, options
        if self.cross_fade:
            write_comparison_sheet(path, frames)
        else:
            write_contact_sheet(path, frames, labels=[str(frame) for frame in range(len(frames))])


def write_contact_sheet(path: Path, frames: AnyFrames, columns: int = 4, labels: Sequence[str] | None = None) -> None:
    """Writes `contact_sheet` as PNG.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: as of `contact_sheet`.
      columns: as of `contact_sheet`.
      labels: as of `contact_sheet`.

    Raises:
      UserError: as of `contact_sheet`, or a path that cannot be written.
    """
    write_atomically(path, encode_png(Image.fromarray(contact_sheet(frames, columns, labels))))


def contact_sheet(
    frames: AnyFrames, columns: int = 4, labels: Sequence[str] | None = None
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """All frames on a white picture, row by row, each with its label above it.

    Args:
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity, which are shown over checks.
      columns: frames a row.
      labels: one a frame; too long ones are cut. None: no labels.

    Raises:
      UserError: not such frames, fewer than one column, or another number of labels.
    """
    check_frames(frames, has_alpha=True)
    frames = over_checks(frames)
    if columns < 1:
        raise UserError(f"a contact sheet of {columns} columns cannot be made: choose at least 1")
    if labels is not None and len(labels) != len(frames):
        raise UserError(f"there are {len(labels)} labels for {len(frames)} frames: give one for each")
    count, height, width, _ = frames.shape
    columns = min(columns, count)
    gap = max(4, min(height, width) // 40)
    text_height = max(10, min(24, height // 12))
    band = 0 if labels is None else text_height + gap
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (band + height + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(text_height)
    for index, frame in enumerate(frames):
        left = gap + (index % columns) * (width + gap)
        top = gap + (index // columns) * (band + height + gap)
        if labels is not None:
            text = _cut_to_width(labels[index], width, font)
            draw.text((left, top + text_height), text, fill="black", font=font, anchor="ls")
        sheet.paste(Image.fromarray(frame), (left, top + band))
    return np.array(sheet)


def write_comparison_sheet(path: Path, frames: AnyFrames) -> None:
    """Writes a contact sheet that has, below each row, the cross-fade between the clip's first and last frame.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity, which are shown over checks; one alone has nothing to
        be compared with, and becomes an ordinary sheet.

    Raises:
      UserError: not such frames, or a path that cannot be written.
    """
    check_frames(frames, has_alpha=True)
    frames = over_checks(frames)
    if len(frames) < 2:
        write_contact_sheet(path, frames, labels=["0"])
        return
    columns, blank = min(COMPARISON_COLUMNS, len(frames)), np.full_like(frames[0], 255)
    faded = cross_fade(frames[:1], frames[-1:], len(frames))[0]
    pictures, names = [], []
    for start in range(0, len(frames), columns):
        here = range(start, min(start + columns, len(frames)))
        for shown, what in ((frames, ""), (faded, " faded")):
            missing = columns - len(here)
            pictures += [*shown[here.start : here.stop], *[blank] * missing]
            names += [*(f"{frame}{what}" for frame in here), *[""] * missing]
    write_contact_sheet(path, np.stack(pictures), columns, names)


def _cut_to_width(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = text.replace("\n", " ")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
