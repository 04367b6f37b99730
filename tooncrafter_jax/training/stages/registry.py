"""Stages by name: a new one is a file of its own and a line here."""

from __future__ import annotations

from jax.sharding import Mesh

from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.stages.autoencoder import Autoencoder
from tooncrafter_jax.training.stages.base import Base
from tooncrafter_jax.training.stages.decoder import Decoder
from tooncrafter_jax.training.stages.distill import Distill
from tooncrafter_jax.training.stages.joint import Joint
from tooncrafter_jax.training.stages.motion import LearnedMotion
from tooncrafter_jax.training.stages.rectify import Rectify
from tooncrafter_jax.training.stages.sketch import Sketch
from tooncrafter_jax.training.stages.stage import Stage

STAGES: dict[str, type[Stage]] = {
    "base": Base,
    "rectify": Rectify,
    "sketch": Sketch,
    "decoder": Decoder,
    "joint": Joint,
    "autoencoder": Autoencoder,
    "motion": LearnedMotion,
    "distill": Distill,
}


def make_stage(config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> Stage:
    """The stage of a config.

    Args:
      config: the run's.
      model: the architecture.
      mesh: the device mesh; None for one device.

    Raises:
      UserError: the config asks the stage for something that it cannot train.
    """
    return STAGES[config.stage](config, model, mesh)
