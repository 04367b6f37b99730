"""JSON: read as it comes from anybody, bounded in size and depth, no key twice, no surprise; written strictly."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.paths import AnyPath

LARGEST_JSON = 2**26
"""Bytes of a file that is read unless said otherwise; JSON grows twentyfold in memory."""


class RepeatedKey(ValueError):
    """An object has a key twice."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
      RepeatedKey: an object has a key twice.
      ValueError: it is no JSON in UTF-8, or is nested too deep.
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


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Writes strict JSON, indented, in UTF-8.

    Numpy and JAX arrays become lists, paths and keys of dicts strings, and NaN and infinities null.

    Args:
      path: of the file; its directory is made if it is missing.
      obj: nested dicts, lists, tuples, arrays, paths, strings, numbers, booleans and None.

    Raises:
      UserError: a path that cannot be written.
      TypeError: something else in `obj`.
    """
    text = json.dumps(_jsonable(obj), indent=2, ensure_ascii=False, allow_nan=False)
    # half a surrogate is escaped, as JSON allows
    write_atomically(path, (text + "\n").encode(errors="backslashreplace"))


def _object(items: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(items)
    if len(found) != len(items):
        seen: set[str] = set()
        twice = next(name for name, _ in items if name in seen or seen.add(name))
        raise RepeatedKey(f"it has the key '{twice[:100]}' twice")
    return found


def _jsonable(obj: object) -> object:
    if obj is None or isinstance(obj, bool | int | str):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, dict):
        return {str(key): _jsonable(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_jsonable(value) for value in obj]
    to_list = getattr(obj, "tolist", None)
    if to_list is not None:
        return _jsonable(to_list())
    raise TypeError(f"{type(obj).__name__} has no form in JSON")
