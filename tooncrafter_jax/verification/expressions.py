"""The small language in which a manifest says what an input is.

An expression is null or an object with one source (`noise`, `array`, `json`, `value`, `zeros`, `case` or `list`) and
optionally `then`, a list of steps applied in order. Arrays are in PyTorch layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.weights.rule import unit_noise

Value = Any
"""What an expression gives: an array, a list, a number, a text or None."""
SOURCES = ("noise", "array", "json", "value", "zeros", "case", "list")


@runtime_checkable
class Resolver(Protocol):
    """Where expressions get what they name."""

    def array(self, name: str) -> HostArray:
        """The stored array "FILE.npz:KEY"."""
        ...

    def json(self, file: str) -> Value:
        """The contents of a JSON file."""
        ...

    def result(self, case: str, name: str) -> Value:
        """A full result of a case."""
        ...


def references(expression: object, where: str) -> Iterator[tuple[str, str]]:
    """What an expression needs, as ("array" | "json" | "case", name), after checking its form.

    Args:
      expression: the expression.
      where: what it belongs to, for messages.

    Raises:
      UserError: if it is no expression, or has an unknown step.
    """
    if expression is None:
        return
    source, expression = _source(expression, where)
    for step in expression.get("then", []):
        if not isinstance(step, Mapping) or len(step) != 1 or next(iter(step)) not in STEPS:
            raise UserError(f"{where} has the unknown step {step!r}: known are {', '.join(STEPS)}")
    if source in ("array", "json", "case"):
        yield source, expression[source]
    elif source == "list":
        for item in expression["list"]:
            yield from references(item, where)


def evaluate(expression: object, resolver: Resolver, where: str) -> Value:
    """The value of an expression: an array, a list, a number, a text or None.

    Args:
      expression: the expression.
      resolver: looks up what it names.
      where: what it belongs to, for messages.

    Raises:
      UserError: if it is no expression, or a step does not fit its value.
    """
    if expression is None:
        return None
    source, expression = _source(expression, where)
    try:
        value = _value(source, expression, resolver, where)
        for step in expression.get("then", []):
            name, argument = next(iter(step.items()))
            value = STEPS[name](value, argument)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise UserError(f"{where} has an input that cannot be made: {type(error).__name__}: {error}") from error
    return value


def _source(expression: object, where: str) -> tuple[str, Mapping[str, Value]]:
    """The source of an expression, and the expression itself."""
    found = [source for source in SOURCES if isinstance(expression, Mapping) and source in expression]
    if len(found) != 1 or not isinstance(expression, Mapping):
        raise UserError(f"{where} has the input {expression!r}, which is not one of {', '.join(SOURCES)}")
    return found[0], expression


def _value(source: str, expression: Mapping[str, Value], resolver: Resolver, where: str) -> Value:
    if source == "noise":
        unit = unit_noise(expression["noise"], tuple(expression["shape"]))
        return np.float32(expression.get("scale", 1.0)) * unit
    if source == "zeros":
        return np.zeros(expression["zeros"], np.float32)
    if source == "array":
        return resolver.array(expression["array"])
    if source == "json":
        return resolver.json(expression["json"])
    if source == "case":
        return resolver.result(expression["case"], expression["result"])
    if source == "list":
        return [evaluate(item, resolver, where) for item in expression["list"]]
    return expression["value"]


# --------------------------------------------------------------------------------------------------------------- steps


def take(array: Value, items: Sequence[object]) -> HostArray:
    """One item an axis, applied in turn: "start:stop:step", a list of indices, or an integer, which drops the axis.

    Raises:
      IndexError: if an index is beyond its axis, or there are more items than axes.
      ValueError: if an item is none of these.
    """
    array, axis = np.asarray(array), 0
    for item in items:
        if axis >= array.ndim:
            raise IndexError(f"the slice {list(items)} has too many items")
        if isinstance(item, str):
            array = array[(slice(None),) * axis + (_slice_of(item),)]
            axis += 1
        elif isinstance(item, list):
            array = np.take(array, np.asarray(item, np.int64), axis)
            axis += 1
        elif isinstance(item, int):
            array = np.take(array, item, axis)
        else:
            raise ValueError(f"{item!r} is no part of a slice")
    return array


def _slice_of(text: str) -> slice:
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if not 2 <= len(parts) <= 3:
        raise ValueError(f"'{text}' is no slice")
    return slice(*parts)


def _image(array: np.ndarray, _: object) -> np.ndarray:
    """uint8 ([B,] H, W, 3) to (B, 3, H, W) in [-1, 1]."""
    batch = array if array.ndim == 4 else array[None]
    return (np.moveaxis(batch, -1, 1).astype(np.float32) / np.float32(255) - np.float32(0.5)) * np.float32(2)


def _hint(array: np.ndarray, _: object) -> np.ndarray:
    """uint8 (T, H, W) to (T, 1, H, W) in [0, 1]."""
    return array[:, None].astype(np.float32) / np.float32(255)


def _nearest(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Nearest-neighbour resize of the last two axes: target i reads source floor(i * source / target)."""
    for axis, target in zip((-2, -1), size, strict=True):
        source = array.shape[axis]
        index = np.floor(np.arange(target, dtype=np.float32) * np.float32(source / target)).astype(np.int64)
        array = np.take(array, np.minimum(index, source - 1), axis)
    return array


def _keep_frames(array: np.ndarray, frames: Sequence[int]) -> np.ndarray:
    kept = np.zeros_like(array)
    kept[list(frames)] = array[list(frames)]
    return kept


def _number(array: np.ndarray, number: float | int) -> Value:
    return np.asarray(number, array.dtype) if np.issubdtype(array.dtype, np.floating) else number


STEPS: dict[str, Callable[[Value, Value], Value]] = {
    "slice": take,
    "clip": lambda array, bounds: np.clip(array, *(_number(array, bound) for bound in bounds)),
    "multiply": lambda array, number: array * _number(array, number),
    "divide": lambda array, number: array / _number(array, number),
    "image": _image,
    "hint": _hint,
    "nearest": _nearest,
    "tile": np.tile,
    "keep_frames": _keep_frames,
    "concatenate": lambda parts, axis: np.concatenate([np.asarray(part) for part in parts], axis),
    "utf8_hex": lambda texts, _: np.asarray([text.encode().hex() for text in texts]),
}
"""Name of a step -> (value, argument) -> value."""
