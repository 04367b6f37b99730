"""Forked processes, which JAX does not survive."""

from __future__ import annotations

import os

from tooncrafter_jax.errors import UserError

_started_in: int | None = None


def check_not_forked() -> None:
    """Finds out whether this process was forked from one that had made a model; the first call says which process it
    is.

    JAX's threads are not copied by a fork, and whoever waits for them waits for ever.

    Raises:
      UserError: if it was.
    """
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid():
        raise UserError(
            "this process was forked from one that had loaded a model, which JAX does not survive: start processes "
            "with multiprocessing.get_context('spawn'), and load the model in each of them"
        )
