"""Compiled programs that persist across runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import jax


def cache_directory() -> Path:
    """Where compiled programs are kept: `$XDG_CACHE_HOME/tooncrafter_jax/xla`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tooncrafter_jax" / "xla"


def enable_compilation_cache() -> None:
    """Turns on JAX's persistent compilation cache, unless the user has chosen a directory (JAX_COMPILATION_CACHE_DIR)."""
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        with contextlib.suppress(RuntimeError):  # a user without a home directory
            jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
