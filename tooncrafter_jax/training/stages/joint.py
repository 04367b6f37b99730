"""The stage `joint`: denoiser, decoder and sketch encoder learn from decoded pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax.sharding import Mesh

from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.objective import clean_from_v, noisy_target, without_rescale
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.tooncrafter import BoundModel
from tooncrafter_jax.training.components import as_float32
from tooncrafter_jax.training.run_config import TrainConfig, ranged
from tooncrafter_jax.training.stages.decoder import DualReferenceStage
from tooncrafter_jax.training.stages.denoising import Denoising
from tooncrafter_jax.training.stages.encoding import clean_latents, conditions_of, ends_of, guided_hints, times_of
from tooncrafter_jax.training.stages.reconstruction import ReconstructionOptions
from tooncrafter_jax.training.stages.rectify import Rectify
from tooncrafter_jax.training.stages.sketch import Sketch
from tooncrafter_jax.training.stages.stage import Batch, ExtractorOptions, SketchSource
from tooncrafter_jax.typing import Latents


@dataclass(frozen=True)
class JointOptions(ReconstructionOptions, ExtractorOptions):
    """Options of the stage `joint`, beside those of the classes that it is made of.

    Attributes:
      last_time_share: of the clips that are noised to the last diffusion time, where a prediction rests on what is
        given alone; the others' times are drawn evenly.
      sketched: whether sketches guide denoiser and motion also where `groups` names nothing of the sketch encoder,
        which then stays as it is.
    """

    last_time_share: float = ranged(0.0, least=0, most=1)
    sketched: bool = False


class Joint(DualReferenceStage):
    """The dual-reference decoder on latents as the denoiser draws them.

    A clip's latents are noised to a time that its seed draws, and the denoiser's one prediction of the clean ones is
    decoded: near the truth at early times, and what it knows of the motion from the ends alone at the last. The
    denoiser, which the start must hold, is frozen unless `config.groups` names parts of it: these learn from the
    pictures too. If it names the sketch encoder's, or with the option `sketched`, sketches guide the denoiser, and
    LPIPS is measured on guided frames first.
    """

    Options: ClassVar[type] = JointOptions
    options: JointOptions
    fewest_frames = 2
    may_train = (*DualReferenceStage.may_train, *Rectify.may_train, *Sketch.may_train)

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        denoiser = Sketch.uses if _draws_sketches(config) else Denoising.uses
        self.uses = tuple(dict.fromkeys((*denoiser, *DualReferenceStage.uses)))
        super().__init__(config, model, mesh)

    @property
    def sketches(self) -> SketchSource | None:
        """As the options say, if there are any."""
        if not _draws_sketches(self.config):
            return None
        return self.options.source()

    def latents(self, model: BoundModel, batch: Batch, motion: Motion | None) -> Latents:
        """The denoiser's prediction of the clean latents, from each clip's own time."""
        latents = clean_latents(model, batch)
        times = times_of(batch, self.model.schedule.timesteps, self.options.last_time_share)
        hints = guided_hints(batch)
        given = conditions_of(
            model, batch, ends_of(latents), latents.shape[1], self.config.dtype, *hints, motion=motion
        )
        schedule = NoiseSchedule(self.model.schedule)
        noise = clip_noise(batch["seed"], Stream.INITIAL, jnp.arange(latents.shape[1]), latents.shape[2:])
        noisy = noisy_target(schedule, latents, noise, times).noisy
        v = as_float32(model.predict_v(noisy, times, given))
        clean = without_rescale(schedule, clean_from_v(schedule, noisy, v, times), times)
        return clean / self.model.schedule.scale_factor


def _draws_sketches(config: TrainConfig) -> bool:
    asked = isinstance(config.options, JointOptions) and config.options.sketched
    return asked or any(group in Sketch.may_train for group in config.groups)
