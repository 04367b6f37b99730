"""Room for the frames of a shot: memory, or, where they are many, a file that goes with its process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import cannot_write

Room = Callable[[tuple[int, ...]], UInt8[np.ndarray, "..."]]
"""Makes an array of bytes of this shape, of any content."""
IN_MEMORY = 2**28
"""Bytes of the largest array that lies in memory, 256 MiB: 546 frames of 512 x 320 pixels."""
_AT_A_TIME = 2**24
"""Bytes that are written together where a file system cannot reserve them."""


def memory(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Room in memory."""
    return np.empty(shape, np.uint8)


class FrameRoom:
    """Makes arrays in memory, and larger ones in files of a directory, which hold as much as its disk does.

    A file has no name, so that the system gives its room back when the array is no longer used, however the process
    ends.

    Args:
      directory: of the files; is made if it is missing.
      in_memory: bytes of the largest array that lies in memory.
    """

    def __init__(self, directory: Path, in_memory: int = IN_MEMORY) -> None:
        self._directory, self._in_memory = directory, in_memory

    def __call__(self, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
        """An array of this shape.

        Raises:
          UserError: the directory cannot be written, or its disk is full.
        """
        size = prod(shape)
        if size <= self._in_memory:
            return memory(shape)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(prefix=".tooncrafter-", dir=self._directory) as file:
                _reserve(file, size)
                return np.memmap(file, np.uint8, "r+", shape=shape)
        except OSError as error:
            raise _no_room(self._directory, size, error) from error


def _reserve(file: IO[bytes], size: int) -> None:
    """Takes the disk's room now: a page that could not be written later would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _AT_A_TIME):  # macOS, Windows
        file.write(bytes(min(_AT_A_TIME, size - start)))
    file.flush()


def _no_room(directory: Path, size: int, error: OSError) -> UserError:
    return UserError(f"{size / 2**30:.1f} GiB of frames do not go there: {cannot_write(str(directory), error)}")
