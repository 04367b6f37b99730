"""The stage `rectify`: toon rectification, layers learn cartoons, those over time keep their motion (spec section
8.5).
"""

from __future__ import annotations

from dataclasses import dataclass

from jax.sharding import Mesh

from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.training.lora import LoraConfig
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.stages.denoising import Denoising


@dataclass(frozen=True)
class RectifyOptions:
    """Options of the stage `rectify`.

    Attributes:
      bypass_temporal: skips the temporal layers in the training forward (variant III of the paper's Table 3).
      lora: low-rank adaptation instead of training the layers themselves.
    """

    bypass_temporal: bool = False
    lora: LoraConfig = LoraConfig()


class Rectify(Denoising):
    """Image-context projector and spatial layers learn cartoons; all else is frozen unless the config says
    otherwise.
    """

    Options = RectifyOptions
    options: RectifyOptions
    trains = ("projector", "spatial", "image_kv", "fps")
    may_train = ("projector", "spatial", "temporal", "image_kv", "fps")

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        super().__init__(config, model, mesh)
        self.bypass_temporal = self.options.bypass_temporal

    @property
    def lora(self) -> LoraConfig:
        """As the options say."""
        return self.options.lora
