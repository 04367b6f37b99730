"""The table that `verify` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tooncrafter_jax.errors import printable
from tooncrafter_jax.verification.comparison import Row
from tooncrafter_jax.verification.folder import Folder
from tooncrafter_jax.verification.run import coverage

_FOREIGN = ("file", "key", "source", "note")  # names of whoever made the folder
HEADINGS = ("array", "case", "max abs", "max / std", "median rel", "tolerance", "verdict")


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table, a block for every file."""
    rows = [replace(row, **{name: printable(getattr(row, name)) for name in _FOREIGN}) for row in rows]
    widths = (
        max([len(row.key) for row in rows] + [len(HEADINGS[0])]),
        max([len(row.source) for row in rows] + [len(HEADINGS[1])]),
    )

    def line(cells: Sequence[str]) -> str:
        texts = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)]
        return "  ".join([*texts, *(f"{cell:>10}" for cell in cells[2:6]), cells[6]]).rstrip()

    file = None
    for row in rows:
        if row.file != file:
            file = row.file
            yield from ("", file, line(HEADINGS))
        numbers = [_number(value) for value in (row.max_abs, row.max_rel, row.median_rel, row.tolerance)]
        if row.tolerance == 0:
            numbers[3] = "equal"
        note = f"{row.verdict}  {row.note}" if row.note else row.verdict
        yield line([row.key, row.source, *numbers, note])


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def summary(folder: Folder, rows: Sequence[Row]) -> Iterator[str]:
    """What was compared, what is covered, and how it ended."""
    counts, where = coverage(folder, list(rows)), printable(folder.path)
    operations = {row.operation for row in rows if row.operation}
    yield (
        f"compared {counts['output']} outputs of {len(operations)} operations and {counts['expression']} inputs with "
        f"their expressions; {counts['data']} inputs are original data"
    )
    if counts["left out"]:
        yield f"NOT all of {where} is covered: {counts['left out']} of {len(folder.entries)} arrays were left out"
    else:
        yield f"all {len(folder.entries)} arrays in all {len(folder.files)} array files of {where} are covered"
    if counts["beyond"]:
        yield f"FAILED: {counts['beyond']} arrays are beyond their tolerance"
    else:
        yield f"passed: every array is within its tolerance{_worst(rows)}"


def _worst(rows: Sequence[Row]) -> str:
    """The row that comes nearest to its tolerance."""
    shares = [(row.max_rel / row.tolerance, row) for row in rows if row.max_rel is not None and row.tolerance]
    if not shares:
        return ""
    share, row = max(shares, key=lambda pair: pair[0])
    return f" (nearest to it: {printable(row.file)}:{printable(row.key)}, at {100 * share:.0f} %)"


def as_json(folder: Folder, rows: Sequence[Row]) -> str:
    """The table and the counts as JSON text."""
    counts = coverage(folder, list(rows))
    return json.dumps(
        {
            "folder": str(folder.path),
            "passed": not counts["beyond"],
            "arrays": len(folder.entries),
            "compared_outputs": counts["output"],
            "checked_expressions": counts["expression"],
            "original_data": counts["data"],
            "left_out": counts["left out"],
            "beyond_tolerance": counts["beyond"],
            "rows": [row.as_json() for row in rows],
        },
        indent=1,
    )
