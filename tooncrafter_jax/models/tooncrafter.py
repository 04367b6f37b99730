"""The one composition of the networks: how ToonCrafter encodes its two pictures, is conditioned, predicts and decodes.

Sampling, every stage of training, evaluation and verification call it; they differ in how they bind networks to parameters, and in
what they compile together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.clip_preprocess import preprocess
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.unet_blocks import ContextKeys
from tooncrafter_jax.typing import Context, FramesPerSecond, Hints, Images, Latents, Timesteps, TokenIds, Tokens, Video

Moments = Float[Array, "B T h w C2"]
"""Mean and log-variance of the posterior of each frame's latents, before the scale factor."""


class SketchCondition(NamedTuple):
    """What the sketch encoder needs in every prediction, computed once.

    Attributes:
      context: its keys and values.
      hint_features: (B, T, h, w, width).
      scale: (B,) control scale; 0 for a clip without sketches.
    """

    context: dict[str, list[ContextKeys]]
    hint_features: jax.Array
    scale: jax.Array


class Conditions(NamedTuple):
    """Everything that a prediction is conditioned on, the same at every diffusion time.

    Attributes:
      concat: (B, T, h, w, C) condition latents: zero but for the first and the last frame.
      context: the denoiser's keys and values of text and image tokens.
      fps: (B,) integer frame rates.
      sketch: None without sketches.
    """

    concat: Latents
    context: dict[str, list[ContextKeys]]
    fps: FramesPerSecond
    sketch: SketchCondition | None = None


class BoundModel:
    """The networks of a model, bound to parameters; made anew wherever a program is traced.

    Args:
      config: the architecture and its diffusion constants.
      bind: component -> its module with parameters. Only those that are asked for are bound.
    """

    def __init__(self, config: ModelConfig, bind: Callable[[str], Any]) -> None:
        self.config, self._bind = config, bind
        self._bound: dict[str, Any] = {}

    def network(self, component: str) -> Any:
        """The module of a component."""
        if component not in self._bound:
            self._bound[component] = self._bind(component)
        return self._bound[component]

    # ------------------------------------------------------------------------------------------------------- encoding

    def text_tokens(self, token_ids: TokenIds) -> Tokens:
        """Text tokens (B, 77, D) of prompts."""
        return self.network("clip_text")(token_ids)

    def picture_tokens(self, pictures: Images) -> Tokens:
        """CLIP's tokens (B, N, D) of pictures in [-1, 1] of any size."""
        tower = self.network("clip_image")
        return tower(preprocess(pictures, tower.config.image_size))

    def image_tokens(self, picture_tokens: Float[Array, "B P E"]) -> Tokens:
        """Image tokens (B, frames x tokens, D), some for each frame, of CLIP's tokens of the first picture (spec section 3.1)."""
        return self.network("image_projector")(picture_tokens)

    def encode(self, frames: Video) -> tuple[Moments, list[jax.Array]]:
        """Moments of the latents of frames in [-1, 1], and the encoder's hidden states, which `references` takes."""
        return self.network("autoencoder")(frames)

    def encode_ends(
        self,
        ends: Float[Array, "B 2 H W 3"],
        seeds: UInt32[Array, "B"],
        last: int | jax.Array,
        noise: Latents | None = None,
    ) -> tuple[Float[Array, "B 2 h w C"], References | None]:
        """The first and the last picture to scaled latents, and to what the decoder refers to.

        Args:
          ends: in [-1, 1].
          seeds: draw the posterior's noise.
          last: number of the last frame.
          noise: (B, 2, h, w, C), instead of what the seeds draw.
        """
        moments, hidden = self.encode(ends)
        if noise is None:
            noise = posterior_noise(moments, seeds, jnp.asarray([0, last]))
        return self.config.schedule.scale_factor * Posterior.from_moments(moments).sample(noise), self.references(
            hidden
        )

    def references(self, hidden: Any) -> References | None:
        """What the decoder refers to of the encoder's hidden states of both end frames; None for a plain decoder."""
        return self.network("decoder").prepare_references(hidden) if self.config.decoder.references else None

    # ------------------------------------------------------------------------------------------------------ predicting

    def context_keys(self, context: Context, frames: int) -> dict[str, list[ContextKeys]]:
        """The denoiser's keys and values of text tokens followed by image tokens."""
        return self.network("unet").context_keys(context, frames)

    def sketch_condition(
        self, context: Float[Array, "rows N D"], hints: Hints, scale: Float[Array, "B"]
    ) -> SketchCondition:
        """What sketches add to the conditions; an all-zero hint leaves its frame unguided (spec section 7).

        The rows of contexts are those of the predictions: clips in every guidance branch, or the clips themselves.
        """
        encoder = self.network("sketch_encoder")
        return SketchCondition(encoder.context_keys(context), encoder.hint_features(hints), scale)

    def condition(
        self,
        ends: Float[Array, "B 2 h w C"],
        frames: int,
        text: Float[Array, "B L D"],
        image: Float[Array, "B M D"],
        fps: FramesPerSecond,
        hints: Hints | None = None,
        scale: Float[Array, "B"] | None = None,
    ) -> Conditions:
        """Everything that predictions for some clips are conditioned on.

        Args:
          ends: scaled latents of both pictures.
          frames: of a clip.
          text: tokens of the prompts.
          image: tokens of the first pictures.
          fps: frame rates.
          hints: sketches, or None.
          scale: of their control; 1 by default.
        """
        context = jnp.concatenate([text.astype(image.dtype), image], axis=1)
        sketch = None
        if hints is not None:
            sketch = self.sketch_condition(context, hints, jnp.ones(hints.shape[0]) if scale is None else scale)
        return Conditions(condition_latents(ends, frames), self.context_keys(context, frames), fps, sketch)

    def predict_v(
        self,
        noisy: Latents,
        times: Timesteps,
        conditions: Conditions,
        *,
        bypass_temporal: bool = False,
        dropout_key: jax.Array | None = None,
    ) -> Latents:
        """The denoiser's v, in its compute dtype.

        Args:
          noisy: scaled latents, noised.
          times: diffusion time of each clip.
          conditions: see there.
          bypass_temporal: skips the temporal layers (variant III of the paper's Table 3).
          dropout_key: turns dropout on: the sketch encoder's where sketches guide, else the denoiser's.
        """
        controls, sketch = None, conditions.sketch
        if sketch is not None:
            encoder = self.network("sketch_encoder")
            controls = encoder(noisy, times, sketch.context, sketch.hint_features, dropout_key=dropout_key)
            scale = sketch.scale[:, None, None, None, None]
            controls = [control * scale.astype(control.dtype) for control in controls]
            dropout_key = None
        return self.network("unet")(
            jnp.concatenate([noisy, conditions.concat], axis=-1),
            times,
            conditions.context,
            conditions.fps,
            controls=controls,
            bypass_temporal=bypass_temporal,
            dropout_key=dropout_key,
        )

    # -------------------------------------------------------------------------------------------------------- decoding

    def decode(self, latents: Latents, references: References | None, frames_per_chunk: int | None = None) -> Video:
        """Frames in about [-1, 1], float32, of scaled latents.

        Args:
          latents: clean, times the scale factor.
          references: of both end frames.
          frames_per_chunk: how many frames are worked on at a time, with the same result; None for all.
        """
        return self.decode_unscaled(latents / self.config.schedule.scale_factor, references, frames_per_chunk)

    def decode_unscaled(
        self, latents: Latents, references: References | None, frames_per_chunk: int | None = None
    ) -> Video:
        """`decode` of latents as the autoencoder's posterior gives them."""
        decoder = self.network("decoder")
        return decoder(latents, references, frames_per_chunk=frames_per_chunk).astype(jnp.float32)


def condition_latents(ends: Float[Array, "B 2 h w C"], frames: int) -> Latents:
    """(B, T, h, w, C): zeros, with the latents (B, 2, h, w, C) of the two pictures at the first and the last frame."""
    middle = jnp.zeros((ends.shape[0], frames - 2, *ends.shape[2:]), ends.dtype)
    return jnp.concatenate([ends[:, :1], middle, ends[:, 1:]], axis=1)


def posterior_noise(moments: Moments, seeds: UInt32[Array, "B"], frames: jax.Array) -> Latents:
    """The noise by which latents of these frames are drawn from their posteriors; a frame's depends on its clip's seed alone."""
    *sides, channels = moments.shape[2:]
    return clip_noise(seeds, Stream.POSTERIOR, frames, (*sides, channels // 2))
