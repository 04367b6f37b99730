"""Compiled programs that persist across runs.

With several processes JAX lets the first one alone write, while each looks in its directory. So a directory that all
hosts share (a network disk, or a bucket such as gs://...) serves all of them in the next run, and one in a host's home
serves the first one only. In the first run every process compiles for itself, all at the same time. (On CPU devices
JAX's key for a program differs from process to process, so there the first one alone finds its programs again.)

`jax_share_binary_between_hosts`, by which the first process hands what it compiled to the others, is not turned on: it
saves no time, as they would wait as long as they compile, and with directories that are not shared they wait in vain
(20 minutes, then an error) for a program that the first process did not compile but found in its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax
from etils import epath

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.runtime.kept_programs import keep_programs

NOTE = (
    "note: compiled programs are kept in {directory} of the first host, where the others do not find them: name a "
    "directory that all hosts share, also gs://..., by --compilation-cache"
)


PROGRAMS = "programs"
"""Where whole programs lie (`kept_programs`) below the directory of the cache, if it is on this machine."""


def cache_directory() -> Path:
    """Where compiled programs are kept: `$XDG_CACHE_HOME/tooncrafter_jax/xla`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tooncrafter_jax" / "xla"


def enable_compilation_cache(directory: str | None = None) -> None:
    """Turns on JAX's persistent compilation cache, and that of whole programs (`kept_programs`); to be called when the
    processes have found each other.

    Args:
      directory: for the programs, on this machine or remote (gs://...). By default the one that the user has chosen for
        all JAX programs (JAX_COMPILATION_CACHE_DIR), else `cache_directory`; where several processes would use the
        latter, a note says that only the first one gains from it.

    Raises:
      UserError: the directory that is given cannot be used.
    """
    if directory is not None:
        jax.config.update("jax_compilation_cache_dir", _checked(directory))
    elif not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        try:
            own = str(cache_directory())
        except RuntimeError:  # a user without a home directory
            return
        jax.config.update("jax_compilation_cache_dir", own)
        if jax.distributed.is_initialized() and jax.process_count() > 1 and jax.process_index() == 0:
            print(NOTE.format(directory=own), file=sys.stderr)
    chosen: str = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    keep_programs(None if "://" in chosen else Path(chosen) / PROGRAMS)


def _checked(directory: str) -> str:
    """The directory, made and writable; absolute where it is on this machine."""
    try:
        path = epath.Path(directory).expanduser()
        if "://" not in directory:
            path = epath.Path(os.path.abspath(path))
        path.mkdir(parents=True, exist_ok=True)
        if "://" not in directory and not os.access(path, os.W_OK):
            raise PermissionError("it is not writable")
    # What remote file systems raise is theirs to choose, a missing package for one of them among it.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"--compilation-cache={directory} cannot be used ({reason}): name a directory that can be written, or "
            "leave it out"
        ) from error
    return os.fspath(path)
