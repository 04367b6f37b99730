"""Locks between processes, which end with the process however it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tooncrafter_jax.notes import note

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


def has_locks() -> bool:
    """Whether this system has locks between processes."""
    return fcntl is not None


@contextlib.contextmanager
def held(lock: Path, waiting: str) -> Iterator[None]:
    """Holds a lock file, which is made if it is missing and stays; waits for whoever else holds it.

    File systems without locks are trusted.

    Args:
      lock: the file.
      waiting: a sentence that is said if another process holds it.

    Raises:
      OSError: the file cannot be made.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note(waiting)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # of a file system that has none
                pass
        yield


@contextlib.contextmanager
def taken(path: Path) -> Iterator[bool]:
    """Takes the lock of a file or a directory that is there, if nobody has it; gives whether it is ours, inside.

    Where there are no locks it is not.

    Raises:
      OSError: it cannot be opened.
    """
    if fcntl is None:
        yield False
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
