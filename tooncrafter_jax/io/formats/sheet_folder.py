"""A folder with a time sheet and the drawings that it names, for animators' programs."""

from __future__ import annotations

import os
import pathlib
from dataclasses import replace

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.formats.output_format import AnyRate, FormatOptions, picture_looks_whole
from tooncrafter_jax.io.frames import AnyFrames, Path, Rate, check_frames, check_playback_rate
from tooncrafter_jax.io.owned_files import new_folder
from tooncrafter_jax.io.timesheets import TimeSheetFormat, read_timesheet, sheet_of_frames, write_timesheet
from tooncrafter_jax.io.timesheets.levels import safe_name


class SheetFolder(AnyRate):
    """See `OutputFormat`. XDTS does not keep a rate.

    Args:
      form: of the sheet. One whose sheet is a file gets a folder around it and its drawings: `clip_xdts/clip.xdts`.
    """

    is_folder = True
    has_alpha = True
    endings: tuple[str, ...] = ()

    def __init__(self, form: TimeSheetFormat) -> None:
        self._form = form
        self.name = form.name

    def file_name(self, clip: str, ending: str | None = None) -> str:
        """As no folder of another format is called."""
        del ending
        return f"{clip}{self._tail}"

    def write(self, path: Path, frames: AnyFrames, fps: Rate, options: FormatOptions) -> None:
        """Writes the sheet and its drawings into a new folder, which appears complete.

        Args:
          path: of the folder; must not be there.
          frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity; where they are all that is known, one layer.
          fps: of the sheet.
          options: with the drawings of each layer, if there are.

        Raises:
          UserError: not such frames, or a folder that is there or cannot be written.
        """
        check_frames(frames, has_alpha=True)
        path = pathlib.Path(os.path.normpath(os.fspath(path)))
        with new_folder(path) as folder:
            name = safe_name(self._clip(path))
            drawn = sheet_of_frames({name: frames}, name=name) if options.drawn is None else options.drawn()
            sheet = replace(drawn.sheet, fps=float(check_playback_rate(fps)))
            write_timesheet(self._sheet(folder), sheet, drawn.pictures, form=self.name)

    def files(self, path: pathlib.Path) -> list[str]:
        """Everything in the folder, after its name; none if there is no such folder."""
        found = [file for file in path.rglob("*") if file.is_file() or file.is_symlink()]
        return sorted(file.relative_to(path.parent).as_posix() for file in found)

    def looks_whole(self, path: pathlib.Path) -> bool:
        """Whether the sheet can be read, and each of its drawings."""
        try:
            sheet = read_timesheet(self._sheet(path), form=self.name)
        except UserError:
            return False
        return all(
            drawing in layer.cels and picture_looks_whole(layer.cels[drawing].path)
            for layer in sheet.layers
            for drawing in layer.drawings()
        )

    @property
    def _is_one(self) -> bool:
        """Whether the sheet is a folder itself."""
        return self._form.is_folder

    @property
    def _tail(self) -> str:
        """What the folder's name has after the clip's."""
        return f".{self._form.endings[0]}" if self._is_one else f"_{self.name}"

    def _clip(self, path: pathlib.Path) -> str:
        return path.name.removesuffix(self._tail)

    def _sheet(self, path: pathlib.Path) -> pathlib.Path:
        return path if self._is_one else path / f"{self._clip(path)}.{self._form.endings[0]}"
