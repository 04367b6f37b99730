"""A call in a process of its own that may not take much memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GIBI = 2**30


def run_limited(
    code: str, *arguments: str, gibibytes: float = 2, seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """Runs Python code whose address space, shared libraries included, may not grow beyond a limit once `limit()` is
    called.

    Args:
      code: imports what it needs, calls `limit()`, then does what is tested.
      arguments: `sys.argv[1:]`.
      gibibytes: what it may take beyond what the imports took.
      seconds: after which it fails.
    """
    limit = f"""
import resource, sys
def limit():
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    most = now + int({gibibytes} * {GIBI})
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", limit + code, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment,
        errors="backslashreplace",
    )


def run_opening(module: str, name: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Opens a path by a callable of a module within a quarter of a gibibyte, and prints why if that is refused."""
    code = f"""
from pathlib import Path
from tooncrafter_jax.errors import UserError
from {module} import {name}
limit()
try:
    {name}(Path(sys.argv[1]))
except UserError as error:
    print(error)
"""
    return run_limited(code, str(path), gibibytes=0.25)
