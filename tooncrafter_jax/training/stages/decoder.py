"""The stage `decoder`: the dual-reference decoder on true latents (spec section 8.6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tooncrafter_jax.diffusion.noise import Stream, clip_noise, clip_timesteps
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.tooncrafter import BoundModel
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.training.run_config import TrainConfig, ranged
from tooncrafter_jax.training.stages.encoding import drawn_latents, ends_of, motion_of
from tooncrafter_jax.training.stages.reconstruction import Encoded, Reconstruction, ReconstructionOptions
from tooncrafter_jax.training.stages.stage import Batch, Derived, replace_config
from tooncrafter_jax.typing import Latents

LAST_TEMPORAL = "decoder.conv_out_temporal.kernel"


class DualReferenceStage(Reconstruction):
    """The dual-reference decoder, with the encoder frozen; frames 0 and T - 1 are the references.

    Temporal and reference parts that a plain image decoder lacks start so that they change nothing, but for the blend
    with carried pictures.
    """

    trains = ("decoder",)
    may_train = (
        "decoder",
        "decoder.p3d",
        "decoder.har",
        "decoder.har.attention",
        "decoder.har.residual",
        "decoder.carried",
    )
    follows_motion = True
    reads_embeddings = True

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        super().__init__(config, model, mesh)
        guides_denoiser = "unet" in self.uses and self.model.motion.guides_denoiser
        if config.motion_share and not guides_denoiser and not self.model.decoder.carried:
            raise UserError(
                f"config.motion_share is {config.motion_share}, but this decoder carries nothing along motion: set "
                "config.model_changes.decoder.carried, or leave the share out"
            )

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """The last convolution over time, which hands frames through; all other new parts end in a layer of zeros.

        Differs from the published code: there it is drawn at random, and training would first have to find the pictures
        again.
        """
        if LAST_TEMPORAL not in missing:
            return {}
        kernel = np.zeros(self.components.abstract_params[LAST_TEMPORAL].shape, np.float32)
        kernel[kernel.shape[0] // 2, 0, 0] = np.eye(kernel.shape[-1])
        bias = np.zeros(kernel.shape[-1:], np.float32)
        return {
            LAST_TEMPORAL: Derived(None, lambda _: kernel),
            LAST_TEMPORAL.replace("kernel", "bias"): Derived(None, lambda _: bias),
        }

    def encoded(self, model: BoundModel, batch: Batch) -> Encoded:
        """Latents and references, without gradient to the encoder."""
        references = model.references_of(to_pixels(ends_of(batch["video"])))
        motion = motion_of(model, batch, self.config.motion_share)
        return Encoded(self.latents(model, batch, motion), references, {}, {}, motion)

    def latents(self, model: BoundModel, batch: Batch, motion: Motion | None) -> Latents:
        """The latents that the decoder is to decode, not scaled, of clips with this motion."""
        raise NotImplementedError


@dataclass(frozen=True)
class DecoderOptions(ReconstructionOptions):
    """Options of the stage `decoder`.

    Attributes:
      latent_noise: standard deviation up to which noise is added to a clip's latents, in units of the scaled latents,
        drawn evenly from 0 on, in validation too; 0 as published. A denoiser's latents are never quite the true ones: a
        decoder that has met noise takes more from its references.
    """

    latent_noise: float = ranged(0.0, least=0)


class Decoder(DualReferenceStage):
    """On the true latents, or on noisy ones."""

    Options: ClassVar[type] = DecoderOptions
    options: DecoderOptions

    def adapt(self, model: ModelConfig) -> ModelConfig:
        """Temporal and reference parts for a published image decoder, such as DynamiCrafter's, unless the config says
        which; the convolution that it begins with stays.
        """
        decoder, asked = model.decoder, self.config.model_changes.get("decoder")
        is_image_decoder = decoder.post_quantization and not (decoder.temporal or decoder.references)
        if not is_image_decoder or (isinstance(asked, Mapping) and not {"temporal", "references"}.isdisjoint(asked)):
            return model
        return replace_config(model, "decoder", temporal=True, references=True)

    def latents(self, model: BoundModel, batch: Batch, motion: Motion | None) -> Latents:
        """The latents that the decoder is to decode, not scaled: the true ones, with noise where that is asked for."""
        del motion
        return self.noisy(drawn_latents(model, batch), batch["seed"])

    def noisy(self, latents: Latents, seeds: jax.Array) -> Latents:
        """The latents with as much noise as the config asks for, by the examples' seeds."""
        most = self.options.latent_noise
        if not most:
            return latents
        schedule = self.model.schedule
        share = clip_timesteps(seeds, schedule.timesteps)[:, None, None, None, None] / schedule.timesteps
        noise = clip_noise(seeds, Stream.STEP, jnp.arange(latents.shape[1]), latents.shape[2:])
        return latents + most / schedule.scale_factor * share * noise
