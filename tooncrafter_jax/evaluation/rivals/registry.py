"""Rivals by name; what one needs is imported when it is made. A new one is a file here, a line below and a test."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.in_betweener import InBetweener

FOLDER = "folder:"
"""What the name of a rival begins with that is a folder of videos; its path follows."""


def in_betweener(name: str, *, weights: Path | None = None) -> InBetweener:
    """Makes a rival.

    Args:
      name: a key of `FACTORIES`, or "folder:PATH", whose name is then the folder's.
      weights: the directory that `fetch-metric-weights` wrote to; the default one without.

    Raises:
      UserError: if there is no such rival, naming the nearest, or no such folder.
    """
    if name.startswith(FOLDER):
        from tooncrafter_jax.evaluation.rivals.folder import Folder

        return Folder(Path(name.removeprefix(FOLDER)).expanduser())
    if name not in FACTORIES:
        near = difflib.get_close_matches(name.lower(), FACTORIES, n=1, cutoff=0.0)[0]
        raise UserError(
            f"there is no rival '{name}' (did you mean '{near}'?): choose of {', '.join(FACTORIES)} and {FOLDER}PATH"
        )
    return FACTORIES[name](weights)


def _lazily(module: str, maker: str, takes_weights: bool = False) -> Callable[[Path | None], InBetweener]:
    """What makes a rival of a module here, which is imported then: some need an extra.

    Args:
      module: the file's name.
      maker: the class or function in it.
      takes_weights: whether that is given the directory of weights.
    """

    def make(weights: Path | None) -> InBetweener:
        made = getattr(importlib.import_module(f"tooncrafter_jax.evaluation.rivals.{module}"), maker)
        return made(weights) if takes_weights else made()

    return make


FACTORIES: Mapping[str, Callable[[Path | None], InBetweener]] = {
    "still": _lazily("blends", "Still"),
    "cross_fade": _lazily("blends", "CrossFade"),
    "flow_warp": _lazily("flow_warp", "FlowWarp"),
    "flow_warp_gmflow": _lazily("flow_warp", "gmflow_warp"),
    "rife": _lazily("rife", "Rife", takes_weights=True),
}
"""Name -> what makes the rival, given the directory of weights."""
