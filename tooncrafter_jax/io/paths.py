"""Paths as users give them: of this machine, or the URL of a bucket.

What a program writes that knows files of this machine alone goes through a `Mirror`. What cannot be done with a bucket
says so in a sentence (`local_path`), so that no folder named `gs:` is ever made.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from etils import epath

from tooncrafter_jax.errors import UserError, missing_extra

AnyPath = Path | epath.Path
"""A path of this machine, or the URL of something in a bucket."""
GivenPath = str | os.PathLike[str]

SCHEMES = {"gs": "gcsfs", "s3": "s3fs"}
"""Scheme of a URL -> the package that opens it."""
_log = logging.getLogger(__name__)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_SQUASHED = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)")
"""What `pathlib` makes of a URL."""


def url_of(path: GivenPath) -> str | None:
    """The URL that a path is; None for a path of this machine."""
    text = os.fspath(path)
    if _URL.match(text):
        return text
    return _SQUASHED.sub(r"\1://", text) if _SQUASHED.match(text) else None


def any_path(path: GivenPath) -> AnyPath:
    """A path that a user gave: absolute, or of a bucket that can be reached.

    Raises:
      UserError: the URL's scheme is unknown, a package is missing that would open it, or the bucket cannot be reached.
    """
    url = url_of(path)
    if url is None:
        return Path(path).absolute()
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return Path("/" + rest.lstrip("/"))
    try:
        opened = epath.Path(url)
    except KeyError as error:
        raise UserError(
            f"'{url}' has the scheme '{scheme}', which is unknown: give a directory, or a URL that begins with "
            f"{' or '.join(f'{name}://' for name in SCHEMES)}"
        ) from error
    if url_of(opened) is None:  # a scheme that stands for a directory of this machine
        return Path(opened)
    _check_opens(url, scheme)
    try:
        opened.exists()
    except Exception as error:  # each package has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"'{url}' cannot be reached ({reason}): check the name, and what this machine may access"
        ) from error
    return opened


def local_path(path: GivenPath) -> Path:
    """A path that must be of this machine, as it was given.

    Raises:
      UserError: it is the URL of a bucket.
    """
    url = url_of(path)
    if url is None:
        return Path(path)
    if url.startswith("file://"):
        return Path("/" + url.removeprefix("file://").lstrip("/"))
    raise UserError(f"'{url}' cannot be a URL here: give a path of this machine, such as a copy or a mounted bucket")


def _check_opens(url: str, scheme: str) -> None:
    """Checks that a package is installed which opens the URL.

    Raises:
      UserError: none is.
    """
    if scheme not in SCHEMES:
        raise UserError(f"'{url}' cannot be used: the schemes gs:// and s3:// can")
    if importlib.util.find_spec("tensorflow") is not None:
        return
    import fsspec

    try:
        fsspec.get_filesystem_class("gcs" if scheme == "gs" else scheme)
    except ImportError as error:
        if scheme == "gs":
            raise missing_extra("gcsfs", "gcs", f"'{url}'") from error
        raise UserError(f"'{url}' needs the package '{SCHEMES[scheme]}', which is not installed: install it") from error


def copy_tree(source: AnyPath, destination: AnyPath) -> None:
    """Copies a directory, to or from a bucket too.

    Raises:
      OSError: as the file system has it.
    """
    if url_of(source) is None and url_of(destination) is None:
        shutil.copytree(source, destination)
        return
    destination.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            copy_tree(path, destination / path.name)
        else:
            copy_file(path, destination / path.name)


def copy_file(source: AnyPath, destination: AnyPath) -> None:
    """Copies a file, to or from a bucket too.

    Raises:
      OSError: as the file system has it.
    """
    with source.open("rb") as read, destination.open("wb") as write:
        shutil.copyfileobj(read, write, 2**20)


def remove_tree(path: AnyPath) -> None:
    """Removes a directory with all that is in it; nothing where there is none. On this machine, what cannot be removed
    stays.

    Raises:
      OSError: of a bucket, as its package has it.
    """
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.rmtree()


class Mirror:
    """A directory for programs that know files of this machine alone.

    Of a bucket it is a temporary one, whose files are copied there when they have changed.

    Args:
      place: where the files belong.
      fetch: names of files that go on where they ended; they are copied from the bucket first.

    Attributes:
      local: the directory to write to.
    """

    def __init__(self, place: AnyPath, fetch: Iterable[str] = ()) -> None:
        self._place, self._copied, self._last = place, dict[Path, tuple[int, int]](), time.monotonic()
        if isinstance(place, Path):
            self.local = place
            place.mkdir(parents=True, exist_ok=True)
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="tooncrafter-")
        self.local = Path(self._temporary.name)
        for name in fetch:
            if (place / name).exists():
                copy_file(place / name, self.local / name)

    def sync(self, *, every: float = 0.0) -> None:
        """Copies what has changed since; at most once in so many seconds, and then what fails is only warned of and
        tried again.

        Raises:
          UserError: the bucket cannot be written.
        """
        if isinstance(self._place, Path) or time.monotonic() - self._last < every:
            return
        self._last = time.monotonic()
        try:
            self._copy(self._place)
        except Exception as error:  # each package has errors of its own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            sentence = f"'{self._place}' cannot be written ({reason})"
            if not every:
                raise UserError(f"{sentence}: check what this machine may write") from error
            _log.warning("%s: trying again in a while", sentence)

    def _copy(self, place: epath.Path) -> None:
        for file in sorted(path for path in self.local.rglob("*") if path.is_file()):
            about = file.stat()
            version = about.st_mtime_ns, about.st_size
            if self._copied.get(file) != version:
                target = place.joinpath(*file.relative_to(self.local).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_file(file, target)
                self._copied[file] = version

    def close(self) -> None:
        """Copies what is left, and removes a temporary directory.

        Raises:
          UserError: the bucket cannot be written.
        """
        try:
            self.sync()
        finally:
            if not isinstance(self._place, Path):
                self._temporary.cleanup()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def user_cache(name: str) -> Path:
    """Where something is kept for this user from run to run: `$XDG_CACHE_HOME/tooncrafter_jax/NAME`, by default below
    `~/.cache`.

    Raises:
      UserError: if there is neither.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tooncrafter_jax" / name
    except RuntimeError as error:
        raise UserError(
            "this user has no home directory to keep weights in: set XDG_CACHE_HOME to a directory"
        ) from error
