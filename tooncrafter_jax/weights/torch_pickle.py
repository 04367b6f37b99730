"""The pickle in a PyTorch file, which says how its tensors are made, read without PyTorch and without ever running it.

A pickle is a program: it names functions and calls them. The few names that tensors need are known here, and each
stands for something that only keeps what it is given; any other name is refused. Before the program is started, all of
its instructions are looked through, so that none asks for more memory than the file has bytes.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tooncrafter_jax.weights.array_pickle import UnsafePickle
from tooncrafter_jax.weights.safetensors_header import LARGEST_DIMENSION, MOST_DIMENSIONS

DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
"""Name of a type of storage in the module `torch` -> what its numbers are."""
_REFUSED_INSTRUCTIONS = frozenset({"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"})
"""Which no PyTorch file has."""
_MEMO_INSTRUCTIONS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class Storage(NamedTuple):
    """A run of numbers in the file.

    Attributes:
      key: its name in the file.
      dtype: of the numbers.
      numbers: how many there are.
    """

    key: str
    dtype: np.dtype
    numbers: int


class TensorRecord(NamedTuple):
    """How a tensor lies in a storage; sizes in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickled(NamedTuple):
    """What a pickle describes.

    Attributes:
      value: dicts, lists and plain values, and a `TensorRecord` for every tensor.
      storages: those that it names, by their keys.
      end: where it ends.
    """

    value: Any
    storages: dict[str, Storage]
    end: int


class _Kind(NamedTuple):
    """Stands for a type of storage."""

    dtype: np.dtype


class _Dict(dict[Any, Any]):
    """A dict that forgets the attributes that PyTorch hangs on it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        del state


class _Makes:
    """Stands for a function; nothing that a pickle sets on it is kept."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        object.__setattr__(self, "_make", make)

    def __setattr__(self, name: str, value: object) -> None:
        raise UnsafePickle("it changes what it names")

    def __setstate__(self, state: object) -> None:
        raise UnsafePickle("it changes what it names")

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)


def _tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> TensorRecord:
    """Stands for the function that makes a tensor out of a storage.

    Raises:
      UnsafePickle: if it would reach beyond the storage, or is not described by numbers.
    """
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise UnsafePickle("a tensor is not described by a storage, a shape and strides")
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers) or len(shape) != len(strides):
        raise UnsafePickle("a tensor's shape or strides are no numbers")
    if len(shape) > MOST_DIMENSIONS:
        raise UnsafePickle(f"a tensor has {len(shape)} dimensions, which no weights have")
    if prod(n or 1 for n in shape) > LARGEST_DIMENSION:  # one without numbers could state any other
        raise UnsafePickle("a tensor states a shape that no weights have")
    assert isinstance(offset, int)
    record = TensorRecord(storage, offset, shape, strides)
    if 0 not in shape and offset + span(record) > storage.numbers:
        raise UnsafePickle("a tensor's shape does not fit its bytes")
    return record


def span(record: TensorRecord) -> int:
    """How many numbers of its storage lie between a tensor's first and last one, both included."""
    return 1 + sum((n - 1) * stride for n, stride in zip(record.shape, record.strides, strict=True))


def _parameter(data: object, *_: object) -> object:
    """Stands for the function that makes a parameter out of a tensor."""
    return data


_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Makes(lambda *items: _Dict(*items)),
    ("torch._utils", "_rebuild_tensor_v2"): _Makes(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Makes(_parameter),
    ("torch", "Size"): _Makes(lambda *sizes: tuple(*sizes)),
    **{("torch", name): _Kind(dtype) for name, dtype in DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.storages: dict[str, Storage] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The stand-in for a name.

        Raises:
          UnsafePickle: for every name but those of tensors.
        """
        found = _KNOWN.get((module_name, global_name))
        if found is not None:
            return found
        if module_name == "torch" and global_name.endswith("Storage"):
            raise UnsafePickle(f"it holds tensors of type torch.{global_name}, which no weights have")
        raise UnsafePickle(
            f"it names {module_name[:100]}.{global_name[:100]}, which is no tensor and could run code, so that it is "
            "never loaded"
        )

    def persistent_load(self, pid: Any, /) -> Storage:
        """A storage, whose numbers lie elsewhere in the file.

        Raises:
          UnsafePickle: if it is no storage.
        """
        if not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise UnsafePickle("it refers to something that is no storage of numbers")
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or not isinstance(storage_type, _Kind) or not isinstance(key, str):
            raise UnsafePickle("it refers to something that is no storage of numbers")
        if type(count) is not int or not 0 <= count < 2**62:
            raise UnsafePickle("it states a storage without a size")
        if view not in ([], [None]):
            raise UnsafePickle("it has a storage inside another, as only PyTorch of before 0.4 wrote them")
        storage = Storage(key, storage_type.dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise UnsafePickle("it states two sizes of one storage")
        return storage


def load_pickle(data: bytes, start: int = 0) -> Pickled:
    """What the pickle describes that begins at a place in `data`.

    Raises:
      UnsafePickle: if it holds or names anything but tensors and plain values, or is damaged.
    """
    try:
        end = _checked_end(data, start)
        unpickler = _Unpickler(data[start:end])
        return Pickled(unpickler.load(), unpickler.storages, end)
    except UnsafePickle:
        raise
    except Exception as error:  # damaged pickles raise nearly anything: EOFError, IndexError, UnicodeDecodeError, ...
        raise UnsafePickle(f"it is damaged ({type(error).__name__})") from error


def _checked_end(data: bytes, start: int) -> int:
    """Where the pickle that begins at `start` ends, if its instructions are such as PyTorch writes."""
    instructions = io.BytesIO(data)
    instructions.seek(start)
    end = start
    for instruction, argument, place in pickletools.genops(instructions):
        if instruction.name in _REFUSED_INSTRUCTIONS:
            raise UnsafePickle(f"it has the instruction {instruction.name}, which PyTorch does not write")
        if instruction.name in _MEMO_INSTRUCTIONS and not 0 <= int(str(argument)) <= len(data):
            raise UnsafePickle("it is damaged (a number of more than it has bytes)")
        end = start if place is None else place + 1
    return end
