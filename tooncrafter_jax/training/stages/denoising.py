"""Stages of the denoiser: `rectify`, the paper's toon rectification, and `base`, a motion prior from nothing (spec section 8.3)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tooncrafter_jax.data.embeddings import encode_pictures
from tooncrafter_jax.data.transforms import to_pixels
from tooncrafter_jax.diffusion.noise import Stream, clip_noise, clip_timesteps
from tooncrafter_jax.diffusion.objective import loss_per_sample, noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.models.tooncrafter import condition_latents
from tooncrafter_jax.nn.remat import remat_policy
from tooncrafter_jax.training.components import Params, as_float32
from tooncrafter_jax.training.stages.encoding import frame_moments, sample_posterior
from tooncrafter_jax.training.stages.stage import Batch, Metrics, Stage
from tooncrafter_jax.typing import Context, Latents

TIME_BUCKETS = 10
"""The loss is logged for so many equal ranges of diffusion time."""


class Conditioned(NamedTuple):
    """What the denoiser is trained on.

    Attributes:
      latents: (B, T, h, w, C) clean latents times the scale factor.
      concat: condition latents: the first and the last frame's, zero between.
      context: text tokens, then image tokens.
    """

    latents: Latents
    concat: Latents
    context: Context


class Denoising(Stage):
    """The v-prediction loss on clips whose first and last frame are given."""

    uses = ("unet", "image_projector", "clip_text", "clip_image", "autoencoder", "decoder")

    # ------------------------------------------------------------------------------------------------- frozen encoders

    def encode(self, params: Params, batch: Batch) -> Latents:
        """Scaled latents of all frames, sampled from the posterior, without gradient."""
        moments = batch.get("moments")
        if moments is None:
            autoencoder = self.components.bind("autoencoder", params)
            moments = frame_moments(lambda video: autoencoder(video)[0], batch["video"])
        return jax.lax.stop_gradient(self.model.schedule.scale_factor * sample_posterior(moments, batch["seed"]))

    def text_tokens(self, params: Params, batch: Batch) -> Float[Array, "B N D"]:
        """Text tokens of the captions, which the loader has dropped some of; gradient only where the tower is trained."""
        if "text" in batch:
            return batch["text"].astype(self.config.dtype)
        return self.components.bind("clip_text", params)(batch["token_ids"])

    def image_tokens(self, params: Params, batch: Batch) -> Float[Array, "B N D"]:
        """CLIP's tokens of the first frame, or of an all-zero picture where the loader says so."""
        if "image" in batch:
            return batch["image"].astype(self.config.dtype)
        first = to_pixels(batch["video"][:, 0])
        first = jnp.where(batch["drop_image"][:, None, None, None], 0.0, first)
        return encode_pictures(self.components.bind("clip_image", params), first)

    def condition(self, params: Params, batch: Batch) -> Conditioned:
        """Everything that the denoiser sees of a clip but its noisy latents."""
        latents = self.encode(params, batch)
        image = self.components.bind("image_projector", params)(self.image_tokens(params, batch))
        context = jnp.concatenate([self.text_tokens(params, batch).astype(image.dtype), image], axis=1)
        return Conditioned(latents, condition_latents(latents[:, jnp.asarray([0, -1])], latents.shape[1]), context)

    # ------------------------------------------------------------------------------------------------------------ loss

    def times(self, batch: Batch) -> Int[Array, "B"]:
        """The diffusion time of each clip, by its seed."""
        return clip_timesteps(batch["seed"], self.model.schedule.timesteps, self.config.last_time_share)

    def loss(self, params: Params, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        """Mean squared error of v over valid clips, at times and with noise drawn by the examples' seeds."""
        given = self.condition(params, batch)
        times = self.times(batch)
        frames = jnp.arange(given.latents.shape[1])
        noise = clip_noise(batch["seed"], Stream.INITIAL, frames, given.latents.shape[2:])
        errors = self.errors(params, batch, given, noise, times, key)
        weights = batch["valid"].astype(jnp.float32)
        loss = jnp.sum(errors * weights) / jnp.maximum(jnp.sum(weights), 1.0)
        return loss, by_time(errors, weights, times, self.model.schedule.timesteps)

    def errors(
        self, params: Params, batch: Batch, given: Conditioned, noise: Latents, times: jax.Array, key: jax.Array | None
    ) -> Float[Array, "B"]:
        """Mean squared error of each clip's v; the target is built from the dynamically rescaled latents."""
        target = noisy_target(NoiseSchedule(self.model.schedule), given.latents, noise, times)
        with remat_policy(self.config.remat):
            v = self.predict(params, batch, target.noisy, given, times, key)
        return loss_per_sample(as_float32(v), target.v)

    def predict(
        self, params: Params, batch: Batch, noisy: Latents, given: Conditioned, times: jax.Array, key: jax.Array | None
    ) -> Latents:
        """The denoiser's v."""
        unet = self.components.bind("unet", params)
        context = unet.context_keys(given.context, noisy.shape[1])
        call = partial(unet, bypass_temporal=self.config.bypass_temporal, dropout_key=key)
        return call(jnp.concatenate([noisy, given.concat], axis=-1), times, context, batch["fps"])


class Rectify(Denoising):
    """Toon rectification: projector and spatial layers learn cartoons, temporal layers keep their motion (spec section 8.5)."""

    trains = ("projector", "spatial", "image_kv", "fps")
    may_train = ("projector", "spatial", "temporal", "image_kv", "fps")


class Base(Denoising):
    """The whole denoiser, to learn motion from nothing; light text and image towers may be trained with it."""

    trains = ("projector", "spatial", "temporal", "image_kv", "fps")
    may_train = (*trains, "clip_text", "clip_image")
    fresh = ("unet", "image_projector", "clip_text", "clip_image")
    """Autoencoder and decoder must be given, or latents would mean nothing."""


def by_time(errors: jax.Array, weights: jax.Array, times: jax.Array, timesteps: int) -> Metrics:
    """Sums of losses and of clips by range of diffusion time."""
    buckets = times * TIME_BUCKETS // timesteps
    return {
        "loss_by_time": jnp.zeros(TIME_BUCKETS).at[buckets].add(errors * weights),
        "clips_by_time": jnp.zeros(TIME_BUCKETS).at[buckets].add(weights),
    }
