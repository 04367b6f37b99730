"""The one composition of the networks: how ToonCrafter encodes its two pictures, is conditioned, predicts and decodes.

Sampling, every stage of training, evaluation and verification call it; they differ in how they bind networks to
parameters, and in what they compile together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8, UInt32

from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.clip_preprocess import preprocess
from tooncrafter_jax.models.configuration import MOTION, ModelConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.unet import Reused
from tooncrafter_jax.models.unet_blocks import ContextKeys
from tooncrafter_jax.nn.chunks import map_chunks
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.typing import (
    Context,
    FramesPerSecond,
    Hints,
    Images,
    Key,
    Latents,
    Timesteps,
    TokenIds,
    Tokens,
    Video,
    VideoFeatures,
)

FRAMES_AT_A_TIME = 4
"""Frames that are encoded together where memory counts: the encoder's activations at full resolution are the largest of
a denoiser's step.
"""
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
      concat: (B, T, h, w, C) condition latents: zero but for the first and the last frame, unless motion guides.
      context: the denoiser's keys and values of text and image tokens.
      fps: (B,) integer frame rates.
      sketch: None without sketches.
      motion: between the two pictures, at each level of the denoiser; None without motion guidance.
    """

    concat: Latents
    context: dict[str, list[ContextKeys]]
    fps: FramesPerSecond
    sketch: SketchCondition | None = None
    motion: tuple[Motion, ...] | None = None


class Kept(NamedTuple):
    """What a whole prediction leaves for those after it that compute the denoiser's outermost blocks alone.

    Attributes:
      features: (B, T, h, w, C) that the outermost blocks start from.
      controls: of the sketch encoder, for the skips of these blocks, scaled; empty without sketches.
    """

    features: VideoFeatures
    controls: tuple[VideoFeatures, ...] = ()


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
        """Image tokens (B, frames x tokens, D), some for each frame, of CLIP's tokens of the first picture (spec
        section 3.1).
        """
        return self.network("image_projector")(picture_tokens)

    def encode(self, frames: Video) -> tuple[Moments, list[VideoFeatures]]:
        """Moments of the latents of frames in [-1, 1], and the encoder's hidden states, which `references` takes."""
        return self.network("autoencoder")(frames)

    def moments(self, video: Video | UInt8[Array, "B T H W 3"], frames_at_a_time: int | None = None) -> Moments:
        """Moments of the latents of whole clips.

        Args:
          video: frames in [-1, 1], or as uint8, which take a quarter of the memory until their turn comes.
          frames_at_a_time: how many are encoded together, with the same result; None for all. Chunks are not for
            gradients.
        """

        def of_part(part: jax.Array) -> jax.Array:
            return self.encode(to_pixels(part) if part.dtype == jnp.uint8 else part)[0]

        return map_chunks(of_part, video, 1, frames_at_a_time)

    def encode_ends(
        self,
        ends: Float[Array, "B 2 H W 3"],
        seeds: UInt32[Array, "B"],
        last: int | Int[Array, ""],
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
        return self.end_latents(moments, seeds, last, noise), self.references(hidden, ends)

    def end_latents(
        self,
        moments: Float[Array, "B 2 h w C2"],
        seeds: UInt32[Array, "B"],
        last: int | Int[Array, ""],
        noise: Latents | None = None,
    ) -> Float[Array, "B 2 h w C"]:
        """The scaled latents of the first and the last picture, of their moments; the rest as of `encode_ends`."""
        return self.config.schedule.scale_factor * draw_latents(moments, seeds, jnp.asarray([0, last]), noise)

    def references(self, hidden: list[VideoFeatures], ends: Float[Array, "B 2 H W 3"]) -> References | None:
        """What the decoder refers to of both end frames in [-1, 1], and of the encoder's hidden states of them; None
        for a plain decoder.
        """
        return self.network("decoder").prepare_references(hidden, ends) if self.config.decoder.references else None

    def references_of(self, ends: Float[Array, "B 2 H W 3"]) -> References | None:
        """`references` of pictures in [-1, 1], without gradients of the encoder, which a plain decoder never runs."""
        if not self.config.decoder.references:
            return None
        return self.references(jax.lax.stop_gradient(self.encode(ends)[1]), ends)

    def motion(
        self,
        ends: Float[Array, "B 2 H W 3"],
        frames: int,
        hints: Hints | None = None,
        most_sketches: int | None = None,
    ) -> Motion:
        """Motion between the first and the last picture in [-1, 1], in pixels, for clips of so many frames.

        Sketches, of which a clip has at most so many between its ends, bend it where the network is built for that.
        Always in float32.
        """
        with exact_float32(jnp.float32):
            return self.network(MOTION)(ends, frames, hints, most_sketches)

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
        motion: Motion | None = None,
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
          motion: between the two pictures, in pixels; None for no motion guidance (spec section 14).
        """
        context = jnp.concatenate([text.astype(image.dtype), image], axis=1)
        sketch = None
        if hints is not None:
            sketch = self.sketch_condition(context, hints, jnp.ones(hints.shape[0]) if scale is None else scale)
        concat, levels = guided_by_motion(condition_latents(ends, frames), motion, self.config)
        return Conditions(concat, self.context_keys(context, frames), fps, sketch, levels)

    def predict_v(
        self,
        noisy: Latents,
        times: Timesteps,
        conditions: Conditions,
        *,
        bypass_temporal: bool = False,
        dropout_key: Key | None = None,
    ) -> Latents:
        """The denoiser's v, in its compute dtype.

        Args:
          noisy: scaled latents, noised.
          times: diffusion time of each clip.
          conditions: see there.
          bypass_temporal: skips the temporal layers (variant III of the paper's Table 3).
          dropout_key: turns dropout on: the sketch encoder's where sketches guide, else the denoiser's.
        """
        controls = self._controls(noisy, times, conditions, dropout_key)
        if controls is not None:
            dropout_key = None
        return self._denoiser(
            noisy,
            times,
            conditions,
            controls=controls,
            bypass_temporal=bypass_temporal,
            dropout_key=dropout_key,
        )

    def predict_keeping(
        self, noisy: Latents, times: Timesteps, conditions: Conditions, blocks: int
    ) -> tuple[Latents, Kept]:
        """`predict_v`, and what `predict_reusing` with so many outermost blocks takes of it."""
        controls = self._controls(noisy, times, conditions)
        outputs: dict[str, VideoFeatures] = {}
        v = self._denoiser(noisy, times, conditions, controls=controls, observe=outputs.__setitem__)
        features = outputs[self.network("unet").reused_output(blocks)]
        return v, Kept(features, tuple((controls or ())[:blocks]))

    def predict_reusing(
        self, noisy: Latents, times: Timesteps, conditions: Conditions, kept: Kept, blocks: int
    ) -> Latents:
        """V by so many outermost blocks of the denoiser alone; all else is that of an earlier time."""
        controls = list(kept.controls) or None
        return self._denoiser(noisy, times, conditions, controls=controls, reused=Reused(blocks, kept.features))

    def _controls(
        self, noisy: Latents, times: Timesteps, conditions: Conditions, dropout_key: Key | None = None
    ) -> list[VideoFeatures] | None:
        """What the sketch encoder adds to the denoiser's skips and middle; None without sketches."""
        sketch = conditions.sketch
        if sketch is None:
            return None
        encoder = self.network("sketch_encoder")
        controls = encoder(noisy, times, sketch.context, sketch.hint_features, dropout_key=dropout_key)
        scale = sketch.scale[:, None, None, None, None]
        return [control * scale.astype(control.dtype) for control in controls]

    def _denoiser(self, noisy: Latents, times: Timesteps, conditions: Conditions, **others: Any) -> Latents:
        return self.network("unet")(
            jnp.concatenate([noisy, conditions.concat], axis=-1),
            times,
            conditions.context,
            conditions.fps,
            motion=conditions.motion,
            **others,
        )

    # -------------------------------------------------------------------------------------------------------- decoding

    def decode(
        self,
        latents: Latents,
        references: References | None,
        frames_per_chunk: int | None = None,
        motion: Motion | None = None,
        tile_size: int | None = None,
    ) -> Video:
        """Frames in about [-1, 1], float32, of scaled latents.

        Args:
          latents: clean, times the scale factor.
          references: of both end frames.
          frames_per_chunk: how many frames are worked on at a time, with the same result; None for all.
          motion: between the end frames, in pixels, for a decoder that carries its references along it.
          tile_size: longest side in pixels of the tiles that the decoder's highest levels draw; None for whole frames.
        """
        unscaled = latents / self.config.schedule.scale_factor
        return self.decode_unscaled(unscaled, references, frames_per_chunk, motion, tile_size)

    def decode_unscaled(
        self,
        latents: Latents,
        references: References | None,
        frames_per_chunk: int | None = None,
        motion: Motion | None = None,
        tile_size: int | None = None,
    ) -> Video:
        """`decode` of latents as the autoencoder's posterior gives them."""
        decoder = self.network("decoder")
        video = decoder(latents, references, motion, frames_per_chunk=frames_per_chunk, tile_size=tile_size)
        return video.astype(jnp.float32)


def condition_latents(ends: Float[Array, "B 2 h w C"], frames: int) -> Latents:
    """(B, T, h, w, C): zeros, with the latents (B, 2, h, w, C) of the two pictures at the first and the last frame."""
    middle = jnp.zeros((ends.shape[0], frames - 2, *ends.shape[2:]), ends.dtype)
    return jnp.concatenate([ends[:, :1], middle, ends[:, 1:]], axis=1)


def guided_by_motion(
    concat: Latents, motion: Motion | None, config: ModelConfig
) -> tuple[Latents, tuple[Motion, ...] | None]:
    """Condition latents with frames between that are carried along the motion, and the motion at each denoiser level.

    Args:
      concat: of `condition_latents`.
      motion: in pixels; None leaves the latents as they are, and so does a motion that is for the decoder alone.
      config: the architecture.
    """
    if motion is None or not config.motion.guides_denoiser:
        return concat, None
    levels = motion.at_levels(concat.shape[2], concat.shape[3], len(config.unet.multipliers))
    return levels[0].carried(concat), levels


def draw_latents(
    moments: Moments,
    seeds: UInt32[Array, "B"],
    frames: Int[Array, "T"] | None = None,
    noise: Latents | None = None,
) -> Latents:
    """A draw from the posterior of each frame, float32, not yet times the scale factor.

    Args:
      moments: of the frames.
      seeds: of the clips: a frame's noise depends on its clip's seed and its number alone.
      frames: their numbers; by default counted from 0.
      noise: (B, T, h, w, C), instead of what the seeds draw.
    """
    posterior = Posterior.from_moments(moments)
    if noise is None:
        numbers = jnp.arange(moments.shape[1]) if frames is None else frames
        noise = clip_noise(seeds, Stream.POSTERIOR, numbers, posterior.mean.shape[2:])
    return posterior.sample(noise)
