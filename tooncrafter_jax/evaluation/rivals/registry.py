"""Rivals by name; what one needs is imported when it is made."""

from __future__ import annotations

import difflib
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


def _still(weights: Path | None) -> InBetweener:
    from tooncrafter_jax.evaluation.rivals.blends import Still

    return Still()


def _cross_fade(weights: Path | None) -> InBetweener:
    from tooncrafter_jax.evaluation.rivals.blends import CrossFade

    return CrossFade()


def _flow_warp(weights: Path | None) -> InBetweener:
    from tooncrafter_jax.evaluation.rivals.flow_warp import FlowWarp

    return FlowWarp()


def _flow_warp_gmflow(weights: Path | None) -> InBetweener:
    from tooncrafter_jax.evaluation.rivals.flow_warp import gmflow_warp

    return gmflow_warp()


def _rife(weights: Path | None) -> InBetweener:
    from tooncrafter_jax.evaluation.rivals.rife import Rife

    return Rife(weights)


FACTORIES: Mapping[str, Callable[[Path | None], InBetweener]] = {
    "still": _still,
    "cross_fade": _cross_fade,
    "flow_warp": _flow_warp,
    "flow_warp_gmflow": _flow_warp_gmflow,
    "rife": _rife,
}
"""Name -> what makes the rival, given the directory of weights."""
