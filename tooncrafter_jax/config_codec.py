"""Frozen config dataclasses to and from plain dicts (JSON, ConfigDict), with errors that name the key and the nearest
right one.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from tooncrafter_jax.errors import UserError, printable

Config = TypeVar("Config")

LONGEST_SHOWN = 100
"""Characters of a foreign key or value in a message."""


def to_dict(config: object) -> Any:
    """A dataclass as nested dicts, lists and scalars, ready for JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return [to_dict(item) for item in config] if isinstance(config, tuple | list) else config


def plain(value: object) -> Any:
    """A number of numpy's or JAX's, or an array of one number without axes, as Python's; all else as it is."""
    item = getattr(value, "item", None)
    return item() if item is not None and getattr(value, "ndim", None) == 0 else value


def from_dict(
    cls: type[Config],
    values: object,
    where: str,
    *,
    also: Collection[str] = (),
    advice: Callable[[str], str | None] = lambda key: None,
) -> Config:
    """Builds a dataclass from plain values; keys that are absent keep their defaults.

    Numbers may be numpy's.

    Args:
      cls: the dataclass.
      values: nested mapping; anything else is refused.
      where: what is being read, for messages, e.g. "model.json".
      also: other names that an unknown key may be meant for.
      advice: how the sentence about an unknown key goes on, where more is known than the nearest right one.

    Raises:
      UserError: for an unknown key (naming the nearest right one) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be a mapping, not {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
    unknown = [key for key in values if key not in names]
    if unknown:
        key = printable(unknown[0], LONGEST_SHOWN)
        if (more := advice(key)) is not None:
            raise UserError(f"{where} has no key '{key}': it {more}")
        near = difflib.get_close_matches(key, [*names, *also], n=1, cutoff=0.5)
        known = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(names)}"
        raise UserError(f"{where} has no key '{key}'; {known}")
    return cls(**{key: convert(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def convert(hint: Any, value: object, where: str) -> Any:
    """A plain value as a field of this type holds it.

    Raises:
      UserError: it is of another type; `where` names the field.
    """
    value = plain(value)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return convert(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise UserError(f"{where} must be a list, not {_shown(value)}")
        return tuple(convert(args[0], item, where) for item in value)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must be a mapping, not {_shown(value)}")
        return dict(value)
    if origin is typing.Literal:
        if not isinstance(value, str | int) or value not in args:
            raise UserError(f"{where} must be one of {', '.join(map(str, args))}, not {_shown(value)}")
        return value
    return value if hint is Any else _scalar(hint, value, where)


def _scalar(hint: type, value: object, where: str) -> object:
    """A text, a number or a truth value; an integer will do where a float is asked for."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise UserError(f"{where} is {_shown(value)}, which is too large") from error
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{where} must be of type {hint.__name__}, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A value as in a message, however long or deep it is."""
    try:
        return printable(repr(value), LONGEST_SHOWN)
    except (RecursionError, ValueError):  # an integer can have more digits than Python prints
        return f"this {type(value).__name__}"
