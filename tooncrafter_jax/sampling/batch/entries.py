"""The lines of a manifest: one JSON object each, and what its fields have to be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.json_files import read_at_most

LARGEST_TEXT = 2**26
"""Bytes of a manifest or a file of prompts; its lines grow tenfold in memory."""
_SHOWN = 80
"""Characters of a value in a sentence."""


@dataclass(frozen=True)
class Entry:
    """A line of a manifest, or a request that is written like one.

    What gives a field raises UserError where it is of another form.

    Attributes:
      values: the object.
      where: names it in sentences.
      base: what its paths are relative to.
    """

    values: Mapping[str, Any]
    where: str
    base: Path

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def unknown(self, known: Collection[str]) -> str | None:
        """The first field, by name, that is none of those that are known; None if there is none."""
        return next(iter(sorted(set(self.values) - set(known))), None)

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._refused(key, value, "text")
        return value

    def whole(self, key: str, default: int) -> int:
        """A whole number."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._refused(key, value, "a whole number")
        return value

    def switch(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._refused(key, value, "true or false")
        return value

    def path(self, key: str) -> Path:
        """A file or a folder."""
        return self.base / self.text(key)

    def texts(self, key: str, like: str) -> dict[str, str]:
        """Texts by name, nothing of a field that is missing or empty; `like` is an example."""
        value = self.values.get(key) or {}
        if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
            raise self._refused(key, value, f"like {like}")
        return dict(value)

    def listed(self, key: str, like: str) -> list[str]:
        """A list of texts, nothing of a field that is missing; `like` is an example."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._refused(key, value, f"like {like}")
        return value

    def _refused(self, key: str, value: object, should: str) -> UserError:
        return UserError(f"{self.where} has {key} = {printable(repr(value), _SHOWN)}, which should be {should}")


def manifest_entries(path: Path) -> list[Entry]:
    """The objects of a manifest's lines.

    Raises:
      UserError: naming the first line that is no object, or has a key twice.
    """
    lines = [(line, f"line {number} of {path}") for number, line in enumerate(read_text(path).split("\n"), 1)]
    entries = [Entry(_object(line, where), where, path.parent) for line, where in lines if line.strip()]
    if not entries:
        raise UserError(f"{path} has no lines: write a JSON object for each clip")
    return entries


def read_text(path: Path) -> str:
    """A text file's content, its lines ended by line feeds.

    Raises:
      UserError: if it cannot be read, is no text or too long.
    """
    try:
        data = read_at_most(path, LARGEST_TEXT)
    except FileNotFoundError as error:
        raise UserError(f"no file {path}: check the path") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is too long to read ({error}): split it into several") from error
    try:
        text = data.decode("utf-8-sig")  # editors may put a byte-order mark in front
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8: save it as one") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _object(line: str, where: str) -> dict[str, Any]:
    def without_repeats(items: list[tuple[str, object]]) -> dict[str, object]:
        for key, count in Counter(key for key, _ in items).items():
            if count > 1:
                raise UserError(f"{where} has '{key}' twice: keep one of them")
        return dict(items)

    try:
        entry = json.loads(line, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise UserError(f'{where} is not an object like {{"first": "a.png", "last": "b.png"}}')
    return entry
