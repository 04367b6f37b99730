"""How far the host may run ahead of the devices."""

from __future__ import annotations

from collections import deque

import jax

IN_FLIGHT = 2
"""Steps that are dispatched and not done: one runs, the next one waits on the device, so that it never idles.

Without a bound the host dispatches tens of steps. A run that is asked to stop has to let them end before it can save,
and a scheduler may grant 30 s; and the time that the host spends on the next batch would say nothing about whether the
devices lack data.
"""


class Pacing:
    """Holds the host back, so that at most `IN_FLIGHT` steps are dispatched and not done."""

    def __init__(self) -> None:
        self._running: deque[object] = deque()

    def before_step(self) -> None:
        """Waits until one more step may be dispatched."""
        while len(self._running) >= IN_FLIGHT:
            jax.block_until_ready(self._running.popleft())

    def after_step(self, result: object) -> None:
        """Notes what a step returns that is not given to the next one, such as its metrics."""
        self._running.append(result)

    def finish(self) -> None:
        """Waits for every step that was dispatched."""
        while self._running:
            jax.block_until_ready(self._running.popleft())
