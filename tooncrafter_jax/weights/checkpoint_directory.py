"""The directory of a checkpoint as files: what belongs to it, what killed writers leave, and what a disk can raise."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import cannot_write, carry_over
from tooncrafter_jax.io.json_files import LARGEST_JSON, parse_json, read_at_most
from tooncrafter_jax.io.paths import AnyPath, remove_tree
from tooncrafter_jax.models.configuration import COMPONENTS
from tooncrafter_jax.notes import note

MODEL_FILE = "model.json"
_BEGINNING = re.compile(rb'\s*\{\s*"format_version"')
"""Of every description that was written."""

Version = tuple[int, ...]
"""Which of the checkpoints that were written to one place is there; empty: none, or it cannot be told, as in a bucket.
"""


def component_file(directory: AnyPath, component: str) -> AnyPath:
    """Where a component is kept that is a safetensors file."""
    return directory / f"{component}.safetensors"


def process_name() -> str:
    """Which process writes: host and number."""
    return f"{_host()}-{os.getpid()}"


def _host() -> str:
    return socket.gethostname().replace("-", "_")


def is_checkpoint(directory: AnyPath) -> bool:
    """Whether a directory has the description of a checkpoint, be it damaged, and not another program's model.json."""
    try:
        data = read_at_most(directory / MODEL_FILE, LARGEST_JSON)
    except (OSError, ValueError):  # it is not there, or far longer than any
        return False
    try:
        description = parse_json(data)
    except ValueError:  # damaged, if it is one
        return not data or _BEGINNING.match(data) is not None
    return isinstance(description, dict) and "components" in description


def version_of(directory: AnyPath) -> Version:
    """Another one whenever another checkpoint has taken the place of this directory."""
    if not isinstance(directory, Path):
        return ()
    try:
        status = os.stat(directory / MODEL_FILE)
    except (OSError, ValueError):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def is_of_checkpoint(name: str) -> bool:
    """Whether an entry of a checkpoint directory is a part of the checkpoint."""
    return name == MODEL_FILE or any(name in (c, component_file(Path(), c).name) for c in COMPONENTS)


def clear_checkpoint(directory: epath.Path) -> None:
    """Removes a checkpoint from a bucket's directory, its description first, and nothing else."""
    for name in (MODEL_FILE, *COMPONENTS, *(component_file(Path(), component).name for component in COMPONENTS)):
        path = directory / name
        if path.is_dir():
            remove_tree(path)
        elif path.exists():
            path.unlink()


def remove_abandoned(directory: Path) -> None:
    """Removes what writers of this directory that were killed on this host have left behind; they can be 10 GB each.

    Raises:
      OSError: as the operating system has it.
    """
    restore_abandoned(directory)
    for leftover in _abandoned(directory, "partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not directory.exists():  # without a new one, an old one is not abandoned
        return
    for leftover in _abandoned(directory, "old"):
        carry_over(leftover, directory, is_of_checkpoint)
        shutil.rmtree(leftover, ignore_errors=True)


def restore_abandoned(directory: Path) -> None:
    """Puts a checkpoint back that a writer has moved out of the way, if it was killed on this host before the new one
    came; says so. Nothing where something is there.
    """
    with contextlib.suppress(OSError):  # another process was faster, or nothing can be renamed here
        if directory.exists():
            return
        found = [(path.stat().st_ctime_ns, path) for path in _abandoned(directory, "old") if is_checkpoint(path)]
        if found:
            max(found)[1].rename(directory)
            note(f"{directory} is back as it was: the process that was replacing it has ended")


def retired_name(directory: Path) -> Path:
    """Where this process keeps a checkpoint while the new one takes its place."""
    return directory.with_name(f".{directory.name}.old-{secrets.token_hex(4)}-{process_name()}")


def partial_name(directory: Path) -> Path:
    """Where this process writes a checkpoint until it is whole."""
    return directory.with_name(f".{directory.name}.partial-{secrets.token_hex(4)}-{process_name()}")


def _abandoned(directory: Path, kind: str) -> list[Path]:
    """What writers of this directory that have ended on this host have left of a kind."""
    found = []
    for path in directory.parent.glob(f".{glob.escape(directory.name)}.{kind}-*"):
        *_, of_host, process = path.name.rsplit("-", 2)
        if of_host == _host() and process.isdigit() and not _is_running(int(process)):
            found.append(path)
    return found


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs as another user
        return True
    return True


@contextlib.contextmanager
def disk_errors(directory: AnyPath) -> Iterator[None]:
    """Turns what a full or read-only disk raises into a sentence."""
    try:
        yield
    except OSError as error:
        raise cannot_write(directory, error) from error
    except ValueError as error:  # tensorstore's way of reporting a failed write
        raise _cannot_write(directory, str(error).splitlines()[0], "free some space or choose another place") from error
    except Exception as error:
        if isinstance(directory, Path) or isinstance(error, UserError):
            raise
        # Of a bucket's package, with errors of its own.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _cannot_write(directory, reason, "check what this machine may write") from error


def _cannot_write(directory: AnyPath, reason: str, remedy: str) -> UserError:
    return UserError(f"'{directory}' cannot be written ({reason[:200]}): {remedy}")
