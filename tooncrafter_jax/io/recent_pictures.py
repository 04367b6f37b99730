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

import numpy as np

from tooncrafter_jax.io.owned_files import identity
from tooncrafter_jax.typing import HostArray

Path = str | os.PathLike[str]
Read = Callable[[Path], HostArray]
_PICTURES = 4


class RecentPictures:
    """A few pictures in memory, each for as long as its file does not change; for one thread.

    Args:
      count: how many.
    """

    def __init__(self, count: int = _PICTURES) -> None:
        self._count = count
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


def remembered(read: Read) -> Read:
    """Makes a function that reads a picture look among the recent ones first, where there are any."""

    @functools.wraps(read)
    def reading(path: Path) -> HostArray:
        recent = _recent.get()
        return read(path) if recent is None else recent.read(path, read)

    return reading
