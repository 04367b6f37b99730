"""Stages by name."""

from __future__ import annotations

from jax.sharding import Mesh

from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.training.configuration import TrainConfig
from tooncrafter_jax.training.stages.denoising import Base, Rectify
from tooncrafter_jax.training.stages.reconstruction import AutoencoderStage, DecoderStage, DenoisedDecoderStage
from tooncrafter_jax.training.stages.sketch import SketchStage
from tooncrafter_jax.training.stages.stage import Stage

STAGES: dict[str, type[Stage]] = {
    "base": Base,
    "rectify": Rectify,
    "sketch": SketchStage,
    "decoder": DecoderStage,
    "autoencoder": AutoencoderStage,
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
    kind = DenoisedDecoderStage if config.denoised_latents else STAGES[config.stage]
    return kind(config, model, mesh)
