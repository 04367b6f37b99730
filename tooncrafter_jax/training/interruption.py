"""Requests to stop: SIGTERM from a scheduler, or a preemption notice of the platform."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

EXIT_PREEMPTED = 75
"""Exit code of a run that saved and stopped because it was asked to: EX_TEMPFAIL, "try again later"."""


class Interruption:
    """Whether the run was asked to stop; every process must ask at the same steps."""

    def __init__(self) -> None:
        self._requested = False

    def request(self, *_: object) -> None:
        """Notes that the run is to stop."""
        self._requested = True

    def requested(self, step: int) -> bool:
        """Whether all processes are to stop after this step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested


@contextlib.contextmanager
def watched() -> Iterator[Interruption]:
    """Watches for SIGTERM while a run goes on; with several processes JAX's own service does, and agrees on a step."""
    interruption = Interruption()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = signal.signal(signal.SIGTERM, interruption.request)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGTERM, before)
