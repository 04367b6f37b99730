"""The pictures of a folder, and the order of numbered files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.images import SUPPORTED_EXTENSIONS


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by their names.

    Raises:
      UserError: it cannot be read; the sentence says why, and its end is the caller's.
    """
    try:
        return pictures_among(sorted(folder.iterdir()))
    except (OSError, ValueError) as error:  # of a name that no folder can have, a ValueError
        raise UserError(f"cannot read the folder {folder}: {getattr(error, 'strerror', None) or error}") from error


def pictures_among(files: Iterable[Path]) -> list[Path]:
    """Those of some files that are called as pictures, but hidden ones."""
    return [path for path in files if path.suffix.lower() in SUPPORTED_EXTENSIONS and path.name[0] != "."]


def by_numbers(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts names so that the numbers in them count as numbers: 2.png comes before 10.png.

    Args:
      path: of which the name counts.

    Returns:
      A key for `sorted`. Text between numbers compares as text; names with equal numbers, such as 1 and 01, by their
      text.
    """
    parts = re.split(r"([0-9]+)", path.stem)
    return [(int(part) if index % 2 else -1, "" if index % 2 else part) for index, part in enumerate(parts)], path.name


def by_last_number(path: Path) -> tuple[int, tuple[list[tuple[int, str]], str]]:
    """Sorts the frames of one sequence by the last number in their names, whatever stands before it.

    Args:
      path: of which the name counts.

    Returns:
      A key for `sorted`; names without a number come first.
    """
    numbers = re.findall(r"[0-9]+", path.stem)
    return int(numbers[-1]) if numbers else -1, by_numbers(path)
