"""What a format of time sheets is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from tooncrafter_jax.io.timesheets.cel_files import Pictures
from tooncrafter_jax.io.timesheets.sheet import TimeSheet


@runtime_checkable
class TimeSheetFormat(Protocol):
    """A form that sheets, and with some their drawings, are exchanged in."""

    @property
    def name(self) -> str:
        """One word."""
        ...

    @property
    def title(self) -> str:
        """What messages call it."""
        ...

    @property
    def endings(self) -> tuple[str, ...]:
        """Of its files (of a folder that is one: the folder's), without the dot, in lower case, the usual one first."""
        ...

    @property
    def is_folder(self) -> bool:
        """Whether a sheet is a folder that its drawings lie in."""
        ...

    @property
    def needs_pictures(self) -> bool:
        """Whether it cannot be written without the drawings."""
        ...

    @property
    def has_marks(self) -> bool:
        """Whether it says where in-betweens are wanted, and which drawings are keys."""
        ...

    @property
    def has_rate(self) -> bool:
        """Whether it says how many frames a second has, and cannot leave it out."""
        ...

    def read(self, path: Path) -> TimeSheet:
        """Reads a sheet; its layers name the pictures that were found (`Layer.cels`).

        Raises:
          OSError: the file cannot be read.
          ValueError: it is none of this format; the message says what is wrong in which place.
          UserError: the same, in a sentence of its own.
        """
        ...

    def write(self, path: Path, sheet: TimeSheet, pictures: Pictures | None) -> list[Path]:
        """Writes a sheet, and its drawings if they are given, whole or not at all.

        Args:
          path: where nothing is yet.
          sheet: with a rate, if the format has one.
          pictures: see `Pictures`; there are some if the format needs them.

        Returns:
          All files that were written, the sheet last.

        Raises:
          UserError: drawings are in the way, or something cannot be written, or a drawing has no picture.
        """
        ...
