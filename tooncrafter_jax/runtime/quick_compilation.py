"""For programs that run a few times only: compiled many times faster, at the cost of their speed and some memory.

JAX up to 0.11 takes an effort from -1 to 1 for this, later releases a level from O0 to O3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax


def quick_options() -> dict[str, float | str]:
    """Options for `compile(compiler_options=...)`."""
    takes_effort = hasattr(jax.config, "jax_exec_time_optimization_effort")
    return {"exec_time_optimization_effort": -1.0} if takes_effort else {"optimization_level": "O1"}


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
    """Compiles everything so while this lasts, in every thread."""
    ((option, value),) = quick_options().items()
    before = getattr(jax.config, f"jax_{option}")
    try:
        jax.config.update(f"jax_{option}", value)
        yield
    finally:
        jax.config.update(f"jax_{option}", before)
