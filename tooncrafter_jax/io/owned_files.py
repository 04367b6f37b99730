"""Which files this program wrote, so that it replaces and deletes those and no others.

A record beside the files names each with its size and checksum. What no record names belongs to somebody else and is
never touched; what a record names, but is no longer as it was written, is kept under another name before a new file
takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Literal, NamedTuple

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.atomic_files import cannot_write, check_no_special_file, sync_directory, temporary_name
from tooncrafter_jax.io.json_files import LARGEST_JSON, parse_json, read_at_most
from tooncrafter_jax.typing import JsonObject

State = Literal["absent", "ours", "changed", "foreign"]
"""Of a file: not there; as it was written, or without content; written by us and not the same since; somebody
else's.
"""
EARLIER = "earlier"
"""Stands before the ending of a file that was kept under another name."""
_MAX_FILE_NAME = 255
"""Bytes, of most file systems."""


class Stamp(NamedTuple):
    """Which content a file has.

    Attributes:
      size: in bytes.
      sha256: of the content, in hexadecimal digits.
    """

    size: int
    sha256: str

    def plain(self) -> JsonObject:
        """As it stands in a record."""
        return self._asdict()

    @classmethod
    def of_plain(cls, value: object) -> Stamp | None:
        """What stands in a record; None if it is no stamp."""
        if isinstance(value, Mapping) and isinstance(value.get("size"), int) and isinstance(value.get("sha256"), str):
            return cls(value["size"], value["sha256"])
        return None


Named = Mapping[str, frozenset[Stamp] | None]
"""File, relative to the record's directory, with / -> the contents that it may have been written with; None: not known
which.
"""


class Stamps:
    """Sizes and checksums of files, each read once for as long as it does not change. May be used by several
    threads.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Stamp] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> Stamp:
        """The stamp of a regular file.

        Raises:
          OSError: it cannot be read.
          ValueError: no file can have such a name.
        """
        with self._lock:
            known = self._known.get(identity(os.stat(path)))
        if known is not None:
            return known
        with path.open("rb") as file:
            return self.of_open(file)

    def of_open(self, file: BinaryIO) -> Stamp:
        """The stamp of a file that is open; it is read from the beginning, unless it is known.

        Raises:
          OSError: it cannot be read.
        """
        key = identity(os.fstat(file.fileno()))
        with self._lock:
            known = self._known.get(key)
        if known is None:
            file.seek(0)
            known = Stamp(key[2], hashlib.file_digest(file, "sha256").hexdigest())  # pyright: ignore[reportArgumentType]
            with self._lock:
                self._known[key] = known
        return known

    def same(self, path: Path, stamps: Iterable[Stamp]) -> bool:
        """Whether a file's content is one of these; it is read only where it is a regular file and the size fits."""
        try:
            status = path.stat()
            fitting = {stamp for stamp in stamps if stamp.size == status.st_size}
            return bool(fitting) and S_ISREG(status.st_mode) and self.of(path) in fitting
        except (OSError, ValueError):
            return False


def identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """What changes when a file's content does: device, inode, size, and the times of content and inode in
    nanoseconds.
    """
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def state(directory: Path, name: str, named: Named, stamps: Stamps) -> State:
    """How a file stands to a record.

    Args:
      directory: the record's.
      name: the file's, relative to it.
      named: what the record names.
      stamps: of files that were looked at before.
    """
    path = directory / name
    if not os.path.lexists(path):
        return "absent"
    if path.is_symlink() or not path.is_file():
        return "foreign"
    if path.stat().st_size == 0:
        return "ours"  # there is nothing in it to lose
    if name not in named:
        return "foreign"
    known = named[name]
    return "ours" if known is not None and stamps.same(path, known) else "changed"


def keep(path: Path, say: Callable[[str], None]) -> Path:
    """Gives a file another name in its directory, and says so.

    Raises:
      OSError: it cannot be renamed.
    """
    number = 1
    while True:
        ending = f".{EARLIER}{'' if number == 1 else f'-{number}'}{path.suffix}"
        kept = path.with_name(shortened(path.stem, _MAX_FILE_NAME - len(os.fsencode(ending))) + ending)
        if not os.path.lexists(kept):
            break
        number += 1
    path.rename(kept)
    say(f"'{path}' is not known to be as this program wrote it: kept as '{kept.name}'")
    return kept


def shortened(name: str, limit: int) -> str:
    """A name of at most `limit` bytes: itself, or its beginning with eight digits that stand for the whole."""
    data = os.fsencode(name)
    if len(data) <= limit:
        return name
    mark = f"~{hashlib.sha256(data).hexdigest()[:8]}"
    beginning = data[: limit - len(mark)]
    while beginning:
        try:
            return beginning.decode() + mark
        except UnicodeDecodeError:
            beginning = beginning[:-1]
    return mark


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives the path of a folder to make, of the same name, in a temporary one beside; at the end it becomes `path`.

    Args:
      path: of the folder; must not be there. Those that it lies in are made.

    Raises:
      UserError: something is there, or it cannot be written; then nothing is left.
    """
    if os.path.lexists(path):
        raise foreign(path, "choose another folder, or move it away")
    staging = Path(temporary_name(os.fspath(path.parent)))
    try:
        try:
            staging.mkdir(parents=True)
            yield staging / path.name
            (staging / path.name).rename(path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sync_directory(os.fspath(path.parent))
    except OSError as error:
        raise cannot_write(path, error) from error
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # it names the temporary folder
            raise cannot_write(path, error.__cause__) from error.__cause__
        raise


def check_json_is_ours(path: Path, keys: Iterable[str]) -> None:
    """Finds out whether a file that was named on the command line may be replaced: it is not there, empty, or such a
    file.

    Args:
      path: the file.
      keys: what every object that is written there has.

    Raises:
      UserError: it holds something else, or is no file.
    """
    check_no_special_file(path)
    try:
        data = read_at_most(path, LARGEST_JSON)
        found = parse_json(data) if data else {}
        if not data or (isinstance(found, dict) and set(keys) <= set(found)):
            return
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        pass
    raise UserError(f"'{path}' holds something else than what is written there: choose another name, or move it away")


def foreign(path: Path | str, remedy: str) -> UserError:
    """The error for a file in the way that is not ours to replace."""
    return UserError(f"'{printable(path)}' would be replaced, but no record says that this program wrote it: {remedy}")
