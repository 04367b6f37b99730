"""A server as a process of its own, which tests kill."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.serving.world import FakeModel
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.server import serve
from tooncrafter_jax.serving.storage import Storage


def main(folder: str, seconds: float) -> None:
    """Serves until it is killed."""
    model = FakeModel(seconds=seconds)
    with Storage(Path(folder)) as storage:
        say = partial(print, flush=True)
        serve(storage, {model.name: model}, Limits(free_megabytes=0), port=0, say=say)
