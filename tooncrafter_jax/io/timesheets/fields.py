"""Values of foreign files, taken with care: each mistake says in which place it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tooncrafter_jax.errors import printable

LARGEST_SHEET = 2**24
"""Bytes of a sheet that is read; an hour of twenty columns has a tenth of it."""
MAX_ENTRIES = 200_000
"""Entries of all layers of a sheet together."""


class Fields:
    """An object of a foreign JSON file.

    Args:
      value: what stands there.
      place: what messages call it.

    Raises:
      ValueError: it is no object.
    """

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} is {kind_of(value)}, where an object should be")
        self._values: Mapping[str, Any] = value
        self.place = place

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def value(self, key: str) -> Any:
        """Whatever stands there; None if nothing does."""
        return self._values.get(key)

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number, 32 bits wide; without a default it must be there.

        Raises:
          ValueError: it is none.
        """
        value = self._get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "a whole number")
        if not -(2**31) <= value < 2**31:
            raise ValueError(f"'{key}' of {self.place} is out of every range")
        return value

    def number(self, key: str, default: int | float | None = None) -> float:
        """A finite number; without a default it must be there.

        Raises:
          ValueError: it is none.
        """
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
            raise self._wrong(key, value, "a number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default it must be there.

        Raises:
          ValueError: it is none.
        """
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false.

        Raises:
          ValueError: it is neither.
        """
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def items(self, key: str, most: int = MAX_ENTRIES) -> list[Any]:
        """A list; an empty one if it is not there.

        Raises:
          ValueError: it is none, or has more than `most` items.
        """
        value = self._get(key, [])
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        if len(value) > most:
            raise ValueError(f"'{key}' of {self.place} has {len(value):,} items: at most {most:,} are read")
        return value

    def _get(self, key: str, default: object) -> object:
        value = self._values.get(key)
        if value is not None:
            return value
        if default is None:
            raise ValueError(f"'{key}' of {self.place} is missing")
        return default

    def _wrong(self, key: str, value: object, wanted: str) -> ValueError:
        return ValueError(f"'{key}' of {self.place} is {kind_of(value)}, where {wanted} should be")


def kind_of(value: object) -> str:
    """What a value of a JSON file is, in a word or two."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the text '{printable(value, 40)}'"
    if isinstance(value, float) and not math.isfinite(value):
        return "no finite number"
    return "nothing" if value is None else f"{printable(value, 40)}" if isinstance(value, float | bool) else "a number"
