"""The directory of a checkpoint as files: what belongs to it, what killed writers leave, and what a disk can raise."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import carry_over
from tooncrafter_jax.io.json_files import LARGEST_JSON, parse_json, read_at_most
from tooncrafter_jax.io.paths import AnyPath, remove_tree
from tooncrafter_jax.models.configuration import COMPONENTS

MODEL_FILE = "model.json"
_BEGINNING = re.compile(rb'\s*\{\s*"format_version"')
"""Of every description that was written."""


def component_file(directory: AnyPath, component: str) -> AnyPath:
    """Where a component is kept that is a safetensors file."""
    return directory / f"{component}.safetensors"


def process_name() -> str:
    """Which process writes: host and number."""
    return f"{socket.gethostname().replace('-', '_')}-{os.getpid()}"


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
    """Removes what writers of this directory that were killed on this host have left behind; they can be 10 GB each."""
    host = socket.gethostname().replace("-", "_")
    # Without a new one, the old one is not abandoned.
    kinds = ("partial", "old") if directory.exists() else ("partial",)
    patterns = [f".{glob.escape(directory.name)}.{kind}-*" for kind in kinds]
    for leftover in [path for pattern in patterns for path in directory.parent.glob(pattern)]:
        *_, of_host, process = leftover.name.rsplit("-", 2)
        if of_host == host and process.isdigit() and not _is_running(int(process)):
            if f".{directory.name}.old-" in leftover.name:
                carry_over(leftover, directory, is_of_checkpoint)
            shutil.rmtree(leftover, ignore_errors=True)


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
        raise UserError(f"cannot write {directory}: {error.strerror or error}") from error
    except ValueError as error:  # tensorstore's way of reporting a failed write
        raise UserError(f"cannot write {directory}: {str(error).splitlines()[0][:200]}") from error
    except Exception as error:
        if isinstance(directory, Path) or isinstance(error, UserError):
            raise
        # Of a bucket's package, with errors of its own.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"cannot write {directory}: {reason}") from error
