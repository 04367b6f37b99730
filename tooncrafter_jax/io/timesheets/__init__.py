"""Time sheets and cels, as animators' programs exchange them: which drawing of which layer is shown when.

    sheet = read_timesheet("cut.xdts")
    layer = sheet.layer("A")
    layer.keys()                        # {0: "1", 6: "2"}: frame -> drawing
    layer.runs(sheet.duration)          # what can be animated as one, with the frames where in-betweens are wanted
    read_cel(layer.cels["1"], sheet.size)

    write_timesheet("cut.csv", *sheet_of_frames({"A": frames}, fps=24))

Formats by name; a new one is a file here, a line below and a test. Needs no JAX.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.owned_files import foreign
from tooncrafter_jax.io.paths import local_path
from tooncrafter_jax.io.timesheets.building import DrawnSheet, numbered, sheet_of_frames, with_in_betweens
from tooncrafter_jax.io.timesheets.cel_files import CelFile, Pictures, PlacedCel, read_cel
from tooncrafter_jax.io.timesheets.levels import drawing_file_name, find_levels, level_files, parse_drawing_file
from tooncrafter_jax.io.timesheets.oca import Oca
from tooncrafter_jax.io.timesheets.sheet import (
    DEFAULT_FPS,
    Exposure,
    Layer,
    Mark,
    Run,
    TimeSheet,
    exposures_of,
    layer_of_drawings,
)
from tooncrafter_jax.io.timesheets.timesheet_format import TimeSheetFormat
from tooncrafter_jax.io.timesheets.tvpaint_csv import TvpaintCsv
from tooncrafter_jax.io.timesheets.xdts import Xdts
from tooncrafter_jax.notes import note

TIMESHEETS: Mapping[str, TimeSheetFormat] = {form.name: form for form in (Xdts(), Oca(), TvpaintCsv())}

__all__ = [
    "DEFAULT_FPS",
    "TIMESHEETS",
    "CelFile",
    "DrawnSheet",
    "Exposure",
    "Layer",
    "Mark",
    "Pictures",
    "PlacedCel",
    "Run",
    "TimeSheet",
    "TimeSheetFormat",
    "drawing_file_name",
    "exposures_of",
    "find_levels",
    "layer_of_drawings",
    "level_files",
    "numbered",
    "parse_drawing_file",
    "read_cel",
    "read_timesheet",
    "sheet_of_frames",
    "timesheet_of_ending",
    "with_in_betweens",
    "write_timesheet",
]


def read_timesheet(path: str | os.PathLike[str], form: str | None = None) -> TimeSheet:
    """Reads a time sheet; its layers name the pictures that were found beside it (`Layer.cels`).

    Args:
      path: an .xdts or TVPaint .csv file, or an .oca folder or the description in it.
      form: of `TIMESHEETS`; None: by the ending.

    Raises:
      UserError: it is missing, of no known format, too large, or damaged; the sentence says where.
    """
    path = local_path(path)
    reader = _format(path, form)
    try:
        return reader.read(path)
    except FileNotFoundError as error:
        raise UserError(f"'{path}' does not exist: check the path") from error
    except (OSError, ValueError, UserError) as error:
        what = f"'{path}' cannot be read as {_article(reader.title)} ({_reason(error)})"
        raise UserError(f"{what}: export it again, or choose another") from error


def write_timesheet(
    path: str | os.PathLike[str], sheet: TimeSheet, pictures: Pictures | None = None, form: str | None = None
) -> list[Path]:
    """Writes a time sheet, and its drawings beside it; nothing that is there is replaced.

    XDTS puts them into a folder for each layer (`A/A_0001.png`), CSV into one (`NAME.frames`), and OCA is a folder.

    Args:
      path: of the sheet; its directory is made if it is missing.
      sheet: see `TimeSheet`.
      pictures: layer -> drawing -> uint8 (H, W, 3) or (H, W, 4). XDTS alone can do without. Each is taken once, so
        that a mapping may read or draw it at that time.
      form: of `TIMESHEETS`; None: by the ending.

    Returns:
      All files that were written, the sheet last.

    Raises:
      UserError: the ending is unknown, something is in the way or cannot be written, or a drawing on the sheet has no
        picture; then nothing is left behind.
    """
    path = local_path(path)
    writer = _format(path, form)
    if os.path.lexists(path):
        raise foreign(path, "choose another name, or move it away")
    if writer.needs_pictures and pictures is None:
        raise UserError(f"'{path}' would name pictures that are not there: give the drawings, or write XDTS")
    if not writer.has_marks and any(layer.marks for layer in sheet.layers):
        note(f"{_article(writer.title)} has no place for marks (in-between, reverse): they are left out")
    if writer.has_rate and sheet.fps is None:
        note(f"the sheet has no rate: {DEFAULT_FPS:g} frames a second are written")
        sheet = replace(sheet, fps=DEFAULT_FPS)
    return writer.write(path, sheet, pictures)


def timesheet_of_ending(ending: str) -> str | None:
    """The format whose files end so, in any case and without the dot; None if there is none."""
    return next((form.name for form in TIMESHEETS.values() if ending.lower() in form.endings), None)


def _format(path: Path, form: str | None) -> TimeSheetFormat:
    known = form if form is not None else timesheet_of_ending(path.suffix[1:])
    if known is None and path.suffix.lower() == ".json":
        known = "oca"  # its description may be called so
    if known is None or known not in TIMESHEETS:
        endings = ", ".join(f".{form.endings[0]}" for form in TIMESHEETS.values())
        wrong = f"'{path}' has no ending" if not path.suffix else f"'{path}' ends in '{path.suffix}'"
        raise UserError(
            f"unknown time sheet '{printable(form, 60)}': choose of {', '.join(TIMESHEETS)}"
            if form is not None
            else f"{wrong}, which is none of a time sheet: use {endings}"
        )
    return TIMESHEETS[known]


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())[:300].rstrip(".")


def _article(title: str) -> str:
    return f"an {title}" if title[0] in "XO" else f"a {title}"
