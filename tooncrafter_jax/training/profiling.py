"""A profile of a few steps, for `xprof` or TensorBoard's profiler."""

from __future__ import annotations

from pathlib import Path

import jax

WARM_UP, TRACED = 3, 3
"""Steps that are let pass, of which the first compiles, and steps that are traced."""


class Profile:
    """Traces some steps of a run; of several processes each writes its own file.

    Args:
      directory: for the traces; None for no profile.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory, self._taken, self._running = directory, 0, False

    def before_step(self) -> None:
        """Starts tracing where the warm-up has passed."""
        if self._directory is not None and self._taken == WARM_UP:
            jax.profiler.start_trace(self._directory)
            self._running = True

    def after_step(self, result: object) -> None:
        """Stops tracing after the last traced step, whose result is waited for."""
        self._taken += 1
        if self._running and self._taken == WARM_UP + TRACED:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a trace that a shorter run leaves open."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
