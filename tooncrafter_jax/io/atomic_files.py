"""Writing files and directories so that a reader finds the old one or the whole new one, and never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import any_path, url_of

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another directory",
    errno.EDQUOT: "free some space or choose another directory",
    errno.EACCES: "choose a directory that this user may write to",
    errno.EPERM: "choose a directory that this user may write to",
    errno.EROFS: "choose a directory that this user may write to",
    errno.EISDIR: "choose the name of a file",
    errno.EEXIST: "choose another name, as a file is in the way",
    errno.ENOTDIR: "choose another directory, as a part of its path is a file",
}


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file by way of a temporary one in the same directory, which is made if it is missing.

    Raises:
      UserError: the file cannot be written; no temporary file is left, and an older file of that name is as it was.
    """
    if url_of(path) is not None:
        _write_to_bucket(path, data)
        return
    with written_whole(path) as temporary:
        write_and_sync(temporary, data)


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[str]:
    """Gives the name of a temporary file to write in the same directory, which is made; at the end it becomes `path`.

    Raises:
      UserError: the file cannot be written, or a device or the like is there; no temporary file is left, and an older
        file of that name is as it was.
    """
    path = os.fspath(path)
    check_no_special_file(path)
    directory = os.path.dirname(path) or "."
    temporary = temporary_name(directory)
    try:
        os.makedirs(directory, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(directory)
    except OSError as error:
        raise cannot_write(path, error) from error


def _write_to_bucket(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes an object, which buckets do whole or not at all."""
    try:
        any_path(path).write_bytes(data)
    except UserError:
        raise
    except Exception as error:  # each package has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"'{os.fspath(path)}' cannot be written ({reason}): check what this machine may write"
        ) from error


def check_no_special_file(path: str | os.PathLike[str]) -> None:
    """Finds out whether a file may take this place: a device, a pipe or a socket is neither replaced nor waited for.

    Raises:
      UserError: one of these is there.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # there is nothing, or nothing that can be known
        return
    if not S_ISREG(mode) and not S_ISDIR(mode):
        raise UserError(f"'{os.fspath(path)}' is a device, a pipe or a socket: choose the name of a file")


def check_writable(directory: str | os.PathLike[str]) -> None:
    """Finds out, before anything expensive starts, whether files can be written to a directory.

    The directory is made if it is missing, and a small file is written to it and removed.

    Raises:
      UserError: the directory cannot be made or written to.
    """
    directory = os.fspath(directory) or "."
    probe = temporary_name(directory)
    try:
        os.makedirs(directory, exist_ok=True)
        try:
            write_and_sync(probe, b"probe")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe)
    except OSError as error:
        raise cannot_write(directory, error) from error


def replace_directory(new: Path, old: Path, is_ours: Callable[[str], bool], retired: Path | None = None) -> None:
    """Moves a finished directory to where an older one may be; a reader finds the one, the other, or for a moment none.

    Args:
      new: the finished directory.
      old: where it goes.
      is_ours: of an entry's name, whether this program makes such files there; all others move on into the new
        directory.
      retired: where the older one is for that moment, of the same directory; by default a name that two processes may
        not use at once, as what is found there is taken for what a killed one has left.

    Raises:
      OSError: as the operating system has it; the older directory is where it was.
    """
    if retired is None:
        retired = old.with_name(f".{old.name}.old")
        if retired.exists() and not old.exists():
            retired.rename(old)  # of a run that was killed between the two
        elif retired.exists():
            carry_over(retired, old, is_ours)
            shutil.rmtree(retired, ignore_errors=True)
    if old.exists():
        old.rename(retired)
    try:
        new.rename(old)
    except BaseException:
        if retired.exists():
            retired.rename(old)
        raise
    if retired.exists():
        carry_over(retired, old, is_ours)
        shutil.rmtree(retired, ignore_errors=True)


def carry_over(source: Path, target: Path, is_ours: Callable[[str], bool]) -> None:
    """Moves what is not ours from a directory that will be removed to the one that took its place.

    Raises:
      OSError: as the operating system has it.
    """
    for entry in list(source.iterdir()):
        if not is_ours(entry.name) and not os.path.lexists(target / entry.name):
            entry.rename(target / entry.name)


def temporary_name(directory: str) -> str:
    """A hidden name in the directory that no other process uses."""
    return os.path.join(directory, f".tooncrafter-{secrets.token_hex(8)}.tmp")


def write_and_sync(path: str, data: bytes) -> None:
    """Writes a new file, on the disk when this returns.

    Raises:
      OSError: as the operating system has it.
    """
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: str) -> None:
    """Puts a finished file on the disk.

    Raises:
      OSError: as the operating system has it.
    """
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_directory(directory: str) -> None:
    """Puts a directory's list of names on the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> UserError:
    """The one sentence for a path that the operating system refuses to write."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another place")
    return UserError(f"'{os.fspath(path)}' cannot be written ({error.strerror or error}): {remedy}")


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike[str], more: str = "") -> Iterator[None]:
    """Turns what a full or read-only disk raises into a sentence.

    Args:
      path: what is being written.
      more: stands behind the sentence.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{cannot_write(path, error)}{more}") from error
