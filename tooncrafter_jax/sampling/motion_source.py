"""Where motion guidance gets its flows from: the model's own network, or published weights for a model that has none:
RIFE's, and HED's for the lines by which sketches bend them.
"""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from pathlib import Path

import jax.numpy as jnp

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import MOTION, ModelConfig
from tooncrafter_jax.models.rife import RifeConfig
from tooncrafter_jax.typing import DeviceParams
from tooncrafter_jax.zoo.hed.weights import fetch_hed_weights, load_hed
from tooncrafter_jax.zoo.metric_weights import load_rife

FLOW, LINES = "flow.", "lines."
"""What the paths of the motion network's published parts begin with."""
_HED_LAYERS = {"convs.0": "blocks.0.convs.0", "convs.1": "blocks.0.convs.1", "side": "sides.0"}
"""Of the line finder's layers, those of HED."""


@lru_cache(maxsize=2)
def published_motion(*, through_sketches: bool = False, cache: Path | None = None) -> DeviceParams:
    """The parameters of a motion network that is RIFE version 4 alone.

    Args:
      through_sketches: whether HED's line finder belongs to it.
      cache: the directory of the fetched weights of RIFE; the default one without.

    Raises:
      UserError: weights were not fetched, or are damaged.
    """
    flow = {f"{FLOW}{path}": value for path, value in load_rife(cache).params.items()}
    if not through_sketches:
        return flow
    hed = load_hed(fetch_hed_weights())
    lines = {
        f"{LINES}{ours}.{leaf}": jnp.asarray(hed[f"{theirs}.{leaf}"])
        for ours, theirs in _HED_LAYERS.items()
        for leaf in ("kernel", "bias")
    }
    return flow | lines


def missing_motion(config: ModelConfig, components: Container[str], cache: Path | None = None) -> DeviceParams | None:
    """What a model's motion network is made of that it does not come with; None if it does.

    Args:
      config: its architecture.
      components: names of the components that it has.
      cache: the directory of the fetched weights; the default one without.

    Raises:
      UserError: its motion network has more parts than are published, or their weights were not fetched.
    """
    if MOTION in components:
        return None
    if config.motion.flow != RifeConfig() or config.motion.refinement_widths:
        raise UserError(
            "this model's motion network is missing: take one with `tooncrafter compact --take=motion=DIR`, or sample "
            "without motion guidance"
        )
    return published_motion(through_sketches=config.motion.through_sketches, cache=cache)
