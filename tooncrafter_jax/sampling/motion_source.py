"""Where motion guidance gets its flows from: the model's own network, or RIFE's published weights for a model that has
none.
"""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import MOTION, ModelConfig
from tooncrafter_jax.models.motion_network import MotionConfig
from tooncrafter_jax.typing import DeviceParams
from tooncrafter_jax.zoo.metric_weights import load_rife


@lru_cache(maxsize=1)
def published_motion(cache: Path | None = None) -> DeviceParams:
    """The parameters of a motion network that is RIFE version 4 alone.

    Args:
      cache: the directory of the fetched weights; the default one without.

    Raises:
      UserError: its weights were not fetched, or are damaged.
    """
    return {f"flow.{path}": value for path, value in load_rife(cache).params.items()}


def missing_motion(config: ModelConfig, components: Container[str], cache: Path | None = None) -> DeviceParams | None:
    """What a model's motion network is made of that it does not come with; None if it does.

    Args:
      config: its architecture.
      components: names of the components that it has.
      cache: the directory of the fetched weights; the default one without.

    Raises:
      UserError: its motion network is not RIFE alone, or RIFE's weights were not fetched.
    """
    if MOTION in components:
        return None
    if config.motion != MotionConfig():
        raise UserError(
            "this model's motion network is missing: take one with `tooncrafter compact --take=motion=DIR`, or sample "
            "without motion guidance"
        )
    return published_motion(cache)
