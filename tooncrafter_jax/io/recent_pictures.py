"""Pictures that were read last: a list of clips often uses one again, as the end of one clip and the beginning of the
next.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import BinaryIO

import numpy as np

from tooncrafter_jax.io.owned_files import Stamps, identity
from tooncrafter_jax.typing import HostArray

Path = str | os.PathLike[str]
Read = Callable[[Path], HostArray]
PICTURES = 4


class RecentPictures:
    """A few pictures in memory, each for as long as its file does not change; for one thread.

    Args:
      count: how many; as many as the largest request has, or some are read twice.
      stamps: learns the stamp of each file that is read, while it is open.
    """

    def __init__(self, count: int = PICTURES, stamps: Stamps | None = None) -> None:
        self._count = count
        self.stamps = stamps
        self._known: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()

    def read(self, path: Path, read: Read) -> HostArray:
        """A picture, by `read` where it is not known; not to be written to."""
        try:
            key = identity(os.stat(path))
        except (OSError, ValueError):
            return read(path)  # which says what is wrong
        if key not in self._known:
            picture = read(path)
            picture.flags.writeable = False
            self._known[key] = picture
        self._known.move_to_end(key)
        while len(self._known) > self._count:
            self._known.popitem(last=False)
        return self._known[key]

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Inside, `read_picture` and what calls it look here first."""
        token = _recent.set(self)
        try:
            yield
        finally:
            _recent.reset(token)


_recent: ContextVar[RecentPictures | None] = ContextVar("recent", default=None)


def learn_stamp(file: BinaryIO) -> None:
    """Says that a picture was read from this file; for the stamp in its record it need not be opened again."""
    recent = _recent.get()
    if recent is not None and recent.stamps is not None:
        recent.stamps.of_open(file)


def remembered(read: Read) -> Read:
    """Makes a function that reads a picture look among the recent ones first, where there are any."""

    @functools.wraps(read)
    def reading(path: Path) -> HostArray:
        recent = _recent.get()
        return read(path) if recent is None else recent.read(path, read)

    return reading
