"""The order of numbered files."""

from __future__ import annotations

import re
from pathlib import Path


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
