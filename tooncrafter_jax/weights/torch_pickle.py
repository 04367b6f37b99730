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
_REFUSED_INSTRUCTIONS = frozenset(
    "INST OBJ EXT1 EXT2 EXT4 PERSID NEXT_BUFFER READONLY_BUFFER EMPTY_SET ADDITEMS FROZENSET".split()
)
"""Which no PyTorch file has."""
_PUTS, _GETS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"}), frozenset({"GET", "BINGET", "LONG_BINGET"})
_PLAIN_TYPES = (int, float, bool, str, bytes, type(None))
_MOST_ARGUMENTS = 10
"""Of a function; that which makes a tensor takes up to eight."""


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
        if len(arguments) > _MOST_ARGUMENTS:
            raise UnsafePickle("it gives a function more than PyTorch does")
        return self._make(*arguments)


def _tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> TensorRecord:
    """Stands for the function that makes a tensor out of a storage.

    Raises:
      UnsafePickle: if it would reach beyond the storage, or is not described by numbers.
    """
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise UnsafePickle("a tensor is not described by a storage, a shape and strides")
    if len(shape) > MOST_DIMENSIONS:
        raise UnsafePickle(f"a tensor has {len(shape)} dimensions, which no weights have")
    numbers = (offset, *shape, *strides) if len(shape) == len(strides) else ()
    if not numbers or not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise UnsafePickle("a tensor's shape or strides are no numbers")
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


def _size(sizes: object) -> tuple[object, ...]:
    """Stands for `torch.Size`.

    Raises:
      UnsafePickle: if it is given no short list.
    """
    if not isinstance(sizes, tuple | list) or len(sizes) > MOST_DIMENSIONS:
        raise UnsafePickle("a tensor's shape is no short list")
    return tuple(sizes)


_KNOWN: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Makes(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Makes(_parameter),
    ("torch", "Size"): _Makes(_size),
    **{("torch", name): _Kind(dtype) for name, dtype in DTYPES.items()},
}


_PLAIN_INSTRUCTIONS = frozenset({"NONE", "NEWTRUE", "NEWFALSE"})


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.storages: dict[str, Storage] = {}
        self._items_left = len(data)
        self._ordered = _Makes(self._ordered_dict)

    def _ordered_dict(self, items: object = ()) -> _Dict:
        """Stands for `OrderedDict`; Python 2 gave it all of its items, each once.

        Raises:
          UnsafePickle: if it is given no pairs of a plain key and a value, or the same ones again and again.
        """
        if not isinstance(items, tuple | list | dict):
            raise UnsafePickle("a dict is made of something that is no list")
        self._items_left -= len(items)
        if self._items_left < 0:
            raise UnsafePickle("it makes more than it holds")
        found = _Dict()
        for pair in items.items() if isinstance(items, dict) else items:
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not _is_plain(pair[0]):
                raise UnsafePickle("a dict is made of something that is no list of keys and values")
            found[pair[0]] = pair[1]
        return found

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The stand-in for a name.

        Raises:
          UnsafePickle: for every name but those of tensors.
        """
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return self._ordered
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
    end, stack = start, _ShadowStack()
    for instruction, argument, place in pickletools.genops(instructions):
        if instruction.name in _REFUSED_INSTRUCTIONS:
            raise UnsafePickle(f"it has the instruction {instruction.name}, which PyTorch does not write")
        if instruction.name in _PUTS and not 0 <= int(str(argument)) <= len(data):
            raise UnsafePickle("it is damaged (a number of more than it has bytes)")
        stack.step(instruction, argument)
        end = start if place is None else place + 1
    return end


def _is_plain(value: object) -> bool:
    """Whether a value can be the key of a dict. Tuples cannot: of sixty, each twice in the next one, a dict would look
    at the innermost 2^60 times.
    """
    return isinstance(value, _PLAIN_TYPES) and (not isinstance(value, int) or -(2**63) <= value < 2**64)


class _ShadowStack:
    """What a pickle's instructions do to its stack, of which only is known what is plain (`_is_plain`)."""

    def __init__(self) -> None:
        self._stack: list[bool | None] = []  # None: a mark
        self._memo: dict[int, bool | None] = {}

    def step(self, instruction: pickletools.OpcodeInfo, argument: object) -> None:
        """Follows an instruction.

        Raises:
          UnsafePickle: it gives a dict a key that is not plain.
          IndexError, KeyError, ValueError: the pickle is damaged.
        """
        name, stack = instruction.name, self._stack
        before, after = instruction.stack_before, instruction.stack_after
        if name == "MARK":
            stack.append(None)
        elif name in _PUTS:
            self._memo[int(str(argument))] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[int(str(argument))])
        elif name == "DUP":
            stack.append(stack[-1])
        elif pickletools.markobject in before:
            taken = self._to_mark()
            if name in ("SETITEMS", "DICT") and not all(taken[::2]):
                raise UnsafePickle("a dict has a key that is neither a name nor a number")
            if name in ("TUPLE", "LIST", "DICT"):
                stack.append(False)
        else:
            if name == "SETITEM" and not stack[-2]:
                raise UnsafePickle("a dict has a key that is neither a name nor a number")
            del stack[len(stack) - len(before) :]
            # What instructions push that take nothing states itself: a number, a text or nothing.
            plain = not before and (_is_plain(argument) if argument is not None else name in _PLAIN_INSTRUCTIONS)
            stack.extend([plain and name != "GLOBAL"] * len(after))

    def _to_mark(self) -> list[bool | None]:
        """Takes what is above the uppermost mark, and the mark."""
        taken: list[bool | None] = []
        while (top := self._stack.pop()) is not None:
            taken.append(top)
        return taken[::-1]
