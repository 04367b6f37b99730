"""A profile of a few steps, for `xprof` or TensorBoard's profiler."""

from __future__ import annotations

import jax

from tooncrafter_jax.io.paths import AnyPath, Mirror

WARM_UP, TRACED = 3, 3
"""Steps that are let pass, of which the first compiles, and steps that are traced."""


class Profile:
    """Traces some steps of a run; of several processes each writes its own file.

    Args:
      directory: for the traces; None for no profile.
    """

    def __init__(self, directory: AnyPath | None) -> None:
        self._mirror = None if directory is None else Mirror(directory)
        self._taken, self._running = 0, False

    def before_step(self) -> None:
        """Starts tracing where the warm-up has passed."""
        if self._mirror is not None and self._taken == WARM_UP:
            jax.profiler.start_trace(self._mirror.local)
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
            if self._mirror is not None:
                self._mirror.close()
