"""Which run makes a clip, where several runs work on one list into one folder.

A claim is a lock on a small hidden file beside the results. The operating system gives the lock back when its process
ends, however it ends; the file goes with the claim, or, where a run was killed, with the next run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import cannot_write
from tooncrafter_jax.runtime.distributed import is_main_process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_CLAIM = re.compile(r"\.tooncrafter-[0-9a-f]{32}\.claim")
_MOMENT = 0.05
"""Seconds, far more than it takes to look at a claim."""
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class Claims:
    """The claims of this run on the clips of one directory.

    Args:
      directory: where the results go.
      say: is called, once, to report that claims are not possible there.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._say = say
        self._held: dict[str, int] = {}
        self._possible = True

    def __enter__(self) -> Claims:
        if is_main_process():
            self._remove_abandoned()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._held):
            self.release(name)

    def take(self, name: str, *, again: bool = False) -> bool:
        """Claims a clip; False if another run has it. Where there are no locks, every run gets every claim.

        Args:
          name: of the clip.
          again: whether a claim that another run has is asked for once more a moment later: a run that begins holds
            all of them for an instant, to find those that were abandoned.

        Raises:
          UserError: the directory cannot be written.
        """
        if name in self._held or not self._possible:
            return True
        descriptor = self._lock(self._path(name))
        if descriptor is None and self._possible and again:
            time.sleep(_MOMENT)
            descriptor = self._lock(self._path(name))
        if descriptor is None:
            return not self._possible
        self._held[name] = descriptor
        return True

    def release(self, name: str) -> None:
        """Gives a claim back; nothing happens where it is not held."""
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path(name))  # before the lock is gone: whoever waits for it then finds another file
            os.close(descriptor)

    def _path(self, name: str) -> Path:
        return self._directory / f".tooncrafter-{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.claim"

    def _lock(self, path: Path) -> int | None:
        """The descriptor of the locked file; None if another process has the lock, or there are no locks."""
        if fcntl is None:
            self._give_up("this operating system has no such locks")
            return None
        while True:
            descriptor = _opened(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            except FileNotFoundError:
                pass  # released and removed since it was opened
            except OSError as error:
                os.close(descriptor)
                if error.errno == errno.EBADF:  # some file systems lock only what can be written
                    raise cannot_write(str(path), PermissionError(errno.EACCES, os.strerror(errno.EACCES))) from error
                if error.errno not in _TAKEN:
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                    self._give_up(f"the file system has no locks ({error.strerror})")
                return None
            os.close(descriptor)

    def _give_up(self, reason: str) -> None:
        if self._possible:
            self._possible = False
            self._say(
                f"clips in '{self._directory}' cannot be claimed, as {reason}: another run of the same list into this "
                "folder would make every clip again"
            )

    def _remove_abandoned(self) -> None:
        """Removes claims that no process holds."""
        paths: list[Path] = []
        with contextlib.suppress(OSError):
            paths += [path for path in self._directory.iterdir() if _CLAIM.fullmatch(path.name)]
        for path in paths:
            with contextlib.suppress(UserError):  # one that cannot be opened is in the way of its own clip alone
                descriptor = self._lock(path)
                if descriptor is not None:
                    with contextlib.suppress(OSError):
                        path.unlink()
                    os.close(descriptor)


def _opened(path: Path) -> int:
    """The descriptor of a claim's file, which is made; another user's can often be read alone, which suffices for a
    lock.

    Raises:
      UserError: it can be neither written nor read.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if isinstance(error, PermissionError):
            with contextlib.suppress(OSError):
                return os.open(path, os.O_RDONLY)
        raise cannot_write(str(path), error) from error
