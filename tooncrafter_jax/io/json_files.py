"""Reads JSON that comes from anybody: bounded in size and depth, no key twice, no surprise while reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tooncrafter_jax.io.paths import AnyPath

LARGEST_JSON = 2**26
"""Bytes of a file that is read unless said otherwise; JSON grows twentyfold in memory."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: it is no JSON in UTF-8, is nested too deep, or an object has a key twice.
    """
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: AnyPath, largest: int = LARGEST_JSON) -> Any:
    """The value in a JSON file; of a longer one nothing is read.

    Raises:
      OSError: the file cannot be read.
      ValueError: see `parse_json`; or the file is larger.
    """
    return parse_json(read_at_most(path, largest))


def read_at_most(path: AnyPath, largest: int) -> bytes:
    """A file's bytes.

    Raises:
      OSError: it cannot be read.
      ValueError: it has more.
    """
    with path.open("rb") as file:
        size = path.stat().st_size if isinstance(path, Path) else path.stat().length
        data = b"" if size > largest else file.read(largest + 1)
        if file.read(1):
            raise ValueError(f"it has more than {largest:,} bytes")
    return data


def is_text(text: str) -> bool:
    """Whether a text can be written; JSON's escapes can make halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        seen: set[str] = set()
        twice = next(name for name, _ in items if name in seen or seen.add(name))
        raise ValueError(f"it has the key '{twice[:100]}' twice")
    return found
