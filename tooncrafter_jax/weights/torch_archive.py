"""Reads PyTorch's zip checkpoints of float32 tensors without PyTorch, and without ever running what is in them.

Such a file is a zip archive: a pickle that says how the tensors are made, and one file of plain bytes for each storage.
Three names are known in the pickle, and each stands for something here that only keeps what it is given.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tooncrafter_jax.typing import HostArray, Tensors
from tooncrafter_jax.weights.array_pickle import UnsafePickle

LARGEST_STORAGE = 2**28
"""Bytes; a larger storage is not one of ours."""


def read_tensors(data: bytes) -> Tensors:
    """The float32 tensors of a checkpoint that holds one dict of them.

    Args:
      data: the file.

    Returns:
      The name, split at its dots -> the tensor.

    Raises:
      UnsafePickle: if the file holds or names anything but a dict of float32 tensors, or is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            tensors = _Unpickler(archive, listing).load()
    except UnsafePickle:
        raise
    except Exception as error:  # damaged pickles raise nearly anything: EOFError, IndexError, UnicodeDecodeError, ...
        raise UnsafePickle(f"it is damaged ({type(error).__name__})") from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) for name, value in tensors.items()
    ):
        raise UnsafePickle("it is no dict of tensors")
    return {tuple(name.split(".")): value for name, value in tensors.items()}


class _FloatStorage:
    """Stands for the type of a storage of float32."""


class _Dict(collections.OrderedDict[object, object]):
    """A dict that forgets the attributes that PyTorch hangs on it."""

    def __setstate__(self, state: object) -> None:
        del state


def _tensor(storage: object, offset: object, shape: Sequence[int], strides: Sequence[int], *_: object) -> HostArray:
    """Stands for the function that makes a tensor out of a storage.

    Raises:
      UnsafePickle: if the tensor is not the row-major contents of its storage.
    """
    lengths = (*shape, 1)
    contiguous = tuple(prod(lengths[axis + 1 :]) for axis in range(len(shape)))
    if not isinstance(storage, np.ndarray) or offset != 0 or tuple(strides) != contiguous:
        raise UnsafePickle("a tensor is not the contents of its storage in row-major order")
    if not all(type(n) is int and n >= 0 for n in shape) or storage.size != prod(shape):
        raise UnsafePickle("a tensor's shape does not fit its bytes")
    return storage.reshape(tuple(shape))


_KNOWN: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch", "FloatStorage"): _FloatStorage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, listing: str) -> None:
        super().__init__(io.BytesIO(archive.read(listing)))
        self._archive, self._folder = archive, listing.removesuffix("data.pkl")

    def find_class(self, module_name: str, global_name: str, /) -> Callable:
        """The stand-in for a name.

        Raises:
          UnsafePickle: for every name but those of float32 tensors.
        """
        if (module_name, global_name) not in _KNOWN:
            raise UnsafePickle(f"it names {module_name}.{global_name}, which is no float32 tensor")
        return _KNOWN[module_name, global_name]

    def persistent_load(self, pid: Any, /) -> HostArray:
        """The numbers of a storage, which lie in a file of their own.

        Raises:
          UnsafePickle: if it is no such storage.
        """
        kind, storage_type, key, _, count = pid
        if kind != "storage" or storage_type is not _FloatStorage or not isinstance(key, str):
            raise UnsafePickle("it refers to something that is no storage of float32")
        entry = self._archive.getinfo(f"{self._folder}data/{key}")
        if entry.file_size != 4 * count or entry.file_size > LARGEST_STORAGE:
            raise UnsafePickle("a storage has another size than stated")
        return np.frombuffer(self._archive.read(entry), "<f4")
