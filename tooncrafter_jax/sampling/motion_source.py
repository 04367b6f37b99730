"""Where motion guidance gets its flows from: the model's own network, or RIFE's published weights for a model that has
none.
"""

from __future__ import annotations

from collections.abc import Container

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.motion_network import MotionConfig
from tooncrafter_jax.typing import DeviceParams
from tooncrafter_jax.zoo.metric_weights import load_rife

MOTION = "motion"
"""Name of the component."""


def published_motion() -> DeviceParams:
    """The parameters of a motion network that is RIFE version 4 alone.

    Raises:
      UserError: its weights were not fetched, or are damaged.
    """
    return {f"flow.{path}": value for path, value in load_rife().params.items()}


def missing_motion(config: ModelConfig, components: Container[str]) -> DeviceParams | None:
    """What a model's motion network is made of that it does not come with; None if it does.

    Args:
      config: its architecture.
      components: names of the components that it has.

    Raises:
      UserError: its motion network is not RIFE alone, or RIFE's weights were not fetched.
    """
    if MOTION in components:
        return None
    if config.motion != MotionConfig():
        raise UserError("this model's motion network is missing: sample without motion guidance, or export it again")
    return published_motion()
