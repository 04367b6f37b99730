"""Reads pickles that hold numpy arrays in nested dicts, without ever running what is in them.

A pickle is a program: it names functions and calls them. Here three names are known, those by which numpy writes an
array, and each stands for a class of this module that only keeps what it is given. Arrays are then made from the plain
bytes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from tooncrafter_jax.typing import HostArray, Tensors


class UnsafePickle(Exception):
    """The pickle names something other than arrays, or is damaged."""


class _Dtype:
    """Stands for `numpy.dtype`; keeps its name and byte order."""

    def __init__(self, name: object, *_: object) -> None:
        self.name, self.order = name, ""

    def __setstate__(self, state: Sequence[object]) -> None:
        self.order = state[1]


class _Array:
    """Stands for a `numpy.ndarray`; keeps shape, dtype, order and bytes."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> HostArray:
        """The float32 array that the state describes, in row-major order.

        Raises:
          UnsafePickle: if it describes anything else.
        """
        _, shape, dtype, column_major, data = self.state
        if not isinstance(dtype, _Dtype) or (dtype.order, dtype.name) != ("<", "f4") or not isinstance(data, bytes):
            raise UnsafePickle("an array is not of little-endian float32")
        if not all(type(n) is int and n >= 0 for n in shape) or len(data) != 4 * prod(shape):
            raise UnsafePickle("an array's shape does not fit its bytes")
        return np.frombuffer(data, "<f4").reshape(shape, order="F" if column_major else "C")


def _reconstruct(*_: object) -> _Array:
    """Stands for the function that makes an empty array, whose state is set afterwards."""
    return _Array()


_KNOWN: dict[str, Callable] = {"_reconstruct": _reconstruct, "ndarray": _Array, "dtype": _Dtype}
_MODULES = {
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
}
"""Where each name lives in numpy; version 2 has renamed one of the modules."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Callable:
        """The stand-in for a name.

        Raises:
          UnsafePickle: for every name but those of arrays.
        """
        if module_name not in _MODULES.get(global_name, ()):
            raise UnsafePickle(f"it names {module_name}.{global_name}, which is no array")
        return _KNOWN[global_name]


def read_arrays(data: bytes) -> Tensors:
    """The float32 arrays of a pickle of nested dicts.

    Args:
      data: the pickle.

    Returns:
      The keys on the way to each array -> the array.

    Raises:
      UnsafePickle: if the pickle holds or names anything but dicts and float32 arrays, or is damaged.
    """
    try:
        found: Tensors = {}
        _collect(_Unpickler(io.BytesIO(data)).load(), (), found)
        return found
    except UnsafePickle:
        raise
    except Exception as error:  # damaged pickles raise nearly anything: EOFError, IndexError, UnicodeDecodeError, ...
        raise UnsafePickle(f"it is damaged ({type(error).__name__})") from error


def _collect(node: object, path: tuple[str, ...], found: dict[tuple[str, ...], np.ndarray]) -> None:
    if isinstance(node, _Array):
        found[path] = node.array()
    elif isinstance(node, dict) and all(isinstance(key, str) for key in node):
        for key, value in node.items():
            _collect(value, (*path, key), found)
    else:
        raise UnsafePickle(f"{'/'.join(path) or 'its whole'} is neither a dict nor an array")
