"""The dual-reference 3D decoder (spec section 5); without its temporal and reference parts it is the plain KL decoder.

Memory: per-frame work runs on `frames_per_chunk` frames at a time and per-pixel work on a like share of the rows. Both
are exact: statistics over the whole clip are taken before the chunks. What stays whole is the activation between two
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from tooncrafter_jax.models.autoencoder import EPSILON, Middle, Res
from tooncrafter_jax.models.carried_references import CarriedPictures, CarriedReferences, Corrections, FrameMotion
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.unet import Observer
from tooncrafter_jax.nn.attention import Attends, Keys, attention
from tooncrafter_jax.nn.chunks import Chunk, map_chunks
from tooncrafter_jax.nn.layers import (
    NORM_GROUPS,
    Conv,
    GroupNorm,
    LayerOptions,
    Linear,
    TemporalConv,
    silu,
    upsample_nearest,
)
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.nn.remat import run_block
from tooncrafter_jax.typing import FloatArray, Latents, Video, VideoFeatures

TEMPORAL_EPSILON = 1e-5
REFERENCE_HEADS = 8
"""Heads of the reference attention at every width (spec section 5.4)."""


@dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a decoder; the defaults are the published model's (spec section 5).

    Attributes:
      width, multipliers, blocks_per_level, z_channels, image_channels: as in `AutoencoderConfig`; the decoder has one
        block more a level.
      latent_channels: channels of a latent as the denoiser sees it; used with `post_quantization`.
      temporal: whether the blocks have temporal parts (the paper's P3D).
      references: whether details of two reference frames are injected (the paper's HAR).
      carried: whether, given motion, details of both references reach every frame (`carried_references`).
      corrects_motion: whether the decoder corrects the motion by the latents on the way.
      post_quantization: whether a 1x1 convolution comes first, as in the plain decoder; the published pipeline skips
        it.
      norm_groups: groups of all group normalisations; 32 in the published model.
      attention_levels: levels that inject references by attention, whose time grows with the square of their pixels;
        the others do so by a residual (spec section 5.4).
      reference_head_dim: channels of a head of the reference attention, whose time grows with them.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks_per_level: int = 2
    z_channels: int = 4
    latent_channels: int = 4
    image_channels: int = 3
    temporal: bool = True
    references: bool = True
    carried: bool = False
    corrects_motion: bool = False
    post_quantization: bool = False
    norm_groups: int = NORM_GROUPS
    attention_levels: tuple[int, ...] = (2, 3)
    reference_head_dim: int = 64


class References(NamedTuple):
    """What `Decoder.prepare_references` makes of the two reference frames.

    Attributes:
      levels: keys and values or residuals of each level, from full to lowest resolution.
      head: residual of the head.
      hidden: the encoder's hidden states at each level, (B, 2, H, W, C); None unless they are carried.
      pictures: (B, 2, H, W, 3) in [-1, 1]; None unless they are carried.
    """

    levels: list[Any]
    head: Float[Array, "B 2 H W C"]
    hidden: list[Float[Array, "B 2 _ _ _"]] | None = None
    pictures: Float[Array, "B 2 H W 3"] | None = None

    def with_open_ends(self, is_open: Bool[Array, "B"]) -> References:
        """Nothing is added to the last frames of some clips alone, as nothing is to the frames between.

        Where nothing is known of a last frame, the second reference is the first once more. Attention to both is that
        to the one, but as a residual it would make the last frame look like the first.
        """

        def known(residual: Float[Array, "B 2 H W C"]) -> Float[Array, "B 2 H W C"]:
            is_left_out = is_open[:, None] & jnp.asarray([False, True])
            return jnp.where(is_left_out[..., None, None, None], 0, residual)

        levels = [level if level is None or isinstance(level, tuple) else known(level) for level in self.levels]
        return self._replace(levels=levels, head=known(self.head))


class TemporalRes(nnx.Module):
    """Residual convolutions over time, mixed with their input by a learned weight (spec section 5.2).

    Args:
      features: channels, a multiple of the groups.
      groups: of the normalisations.
    """

    def __init__(self, features: int, groups: int, **kw: Unpack[LayerOptions]) -> None:
        self.norm_in = GroupNorm(features, groups, epsilon=TEMPORAL_EPSILON, **kw)
        self.conv_in = TemporalConv(features, features, **kw)
        self.norm_out = GroupNorm(features, groups, epsilon=TEMPORAL_EPSILON, **kw)
        self.conv_out = TemporalConv(features, features, zero_init=True, **kw)
        self.mix_logit = nnx.Param(
            nnx.initializers.zeros_init()(kw["rngs"].params(), (1,), kw.get("param_dtype", jnp.float32))
        )

    def __call__(self, x: Float[Array, "B T H W C"], rows: Chunk = None) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same; `rows` bounds how many rows are convolved at a time."""

        def stage(norm: GroupNorm, conv: TemporalConv, h: FloatArray) -> FloatArray:
            statistics = norm.statistics(h)
            return map_chunks(lambda part: conv(silu(norm.apply(part, *statistics))), h, 2, rows)

        h = stage(self.norm_out, self.conv_out, stage(self.norm_in, self.conv_in, x))
        mix = jax.nn.sigmoid(self.mix_logit[...].astype(jnp.float32)).astype(x.dtype)
        return mix * (x + h) + (1 - mix) * x


class VideoBlock(nnx.Module):
    """A residual block on frames, then (`config.temporal`) one over time.

    Args:
      features: channels of the input, a multiple of the groups.
      out_features: channels of the output, a multiple of the groups.
      config: of the decoder.
    """

    def __init__(self, features: int, out_features: int, config: DecoderConfig, **kw: Unpack[LayerOptions]) -> None:
        self.res = Res(features, out_features, config.norm_groups, **kw)
        self.temporal = nnx.data(TemporalRes(out_features, config.norm_groups, **kw) if config.temporal else None)

    def __call__(self, x: VideoFeatures, chunk: Chunk = None) -> VideoFeatures:
        """Maps (B T H W C) to (B T H W C')."""
        frames, height = x.shape[1:3]
        h = map_chunks(self.res, constrain(x, "batch", "frames", None, None, None), 1, chunk)
        if self.temporal is None:
            return h
        rows = None if chunk is None or chunk >= frames else max(1, height * chunk // frames)
        return self.temporal(h, rows)


class ReferenceAttention(Attends, nnx.Module):
    """Attention of every frame to all pixels of the two reference frames (spec section 5.4).

    Args:
      features: channels, a multiple of the groups.
      config: of the decoder.
    """

    def __init__(self, features: int, config: DecoderConfig, **kw: Unpack[LayerOptions]) -> None:
        inner = REFERENCE_HEADS * config.reference_head_dim
        self.norm = GroupNorm(features, config.norm_groups, epsilon=EPSILON, **kw)
        self.query = Linear(features, inner, use_bias=False, **kw)
        self.key = Linear(features, inner, use_bias=False, **kw)
        self.value = Linear(features, inner, use_bias=False, **kw)
        self.out = Linear(inner, features, zero_init=True, **kw)

    def prepare(self, hidden: Float[Array, "B 2 H W C"]) -> tuple[Keys, Keys]:
        """Keys and values (B, 2·H·W, heads, head_dim) of the references (B 2 H W C), first reference first."""
        tokens = rearrange(hidden, "b r h w c -> b (r h w) c")
        key, value = (
            rearrange(project(tokens), "b m (heads d) -> b m heads d", heads=REFERENCE_HEADS)
            for project in (self.key, self.value)
        )
        return key, value

    def __call__(
        self, x: Float[Array, "B T H W C"], prepared: tuple[Keys, Keys], chunk: Chunk = None
    ) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same."""
        height, width = x.shape[2:4]

        def some_frames(part: FloatArray) -> FloatArray:
            frames = part.shape[1]
            q = rearrange(
                self.query(self.norm(part, batch_axes=2)), "b t h w (n d) -> b (t h w) n d", n=REFERENCE_HEADS
            )
            h = attention(q, *prepared, rows="batch", tokens="frames", prefer=self.attention_backend)
            h = rearrange(h, "b (t h w) n d -> b t h w (n d)", t=frames, h=height, w=width)
            return part + self.out(h)

        return map_chunks(some_frames, x, 1, chunk)


class ReferenceResidual(nnx.Module):
    """Adds a 1x1 convolution of each reference to the first and to the last frame alone (spec section 5.4).

    Args:
      features: channels.
    """

    def __init__(self, features: int, **kw: Unpack[LayerOptions]) -> None:
        self.conv = Conv(features, features, 1, zero_init=True, **kw)

    def prepare(self, hidden: Float[Array, "B 2 H W C"]) -> Float[Array, "B 2 H W C"]:
        """What is added (B 2 H W C): to the first frame, to the last frame."""
        return self.conv(hidden)

    def __call__(
        self, x: Float[Array, "B T H W C"], prepared: Float[Array, "B 2 H W C"], chunk: Chunk = None
    ) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same; with one frame both references are added to it."""
        del chunk
        frame = jnp.arange(x.shape[1])[None, :, None, None, None]
        zero = jnp.zeros((), x.dtype)
        x = x + jnp.where(frame == 0, prepared[:, :1].astype(x.dtype), zero)
        return x + jnp.where(frame == x.shape[1] - 1, prepared[:, 1:].astype(x.dtype), zero)


class UpLevel(nnx.Module):
    """Blocks of one resolution, the injection of the references, and the convolution after doubling.

    Args:
      level: 0 for full resolution, which has no convolution after it.
      blocks: in the order in which they run.
      features: channels of their result, a multiple of the groups.
      config: of the decoder.
    """

    def __init__(
        self, level: int, blocks: list[VideoBlock], features: int, config: DecoderConfig, **kw: Unpack[LayerOptions]
    ) -> None:
        self.blocks = nnx.List(blocks)
        attends = config.references and level in config.attention_levels
        self.reference_attention = nnx.data(ReferenceAttention(features, config, **kw) if attends else None)
        self.reference_residual = nnx.data(
            ReferenceResidual(features, **kw) if config.references and not attends else None
        )
        self.carried = nnx.data(
            CarriedReferences(features, config.norm_groups, corrects_motion=config.corrects_motion, **kw)
            if config.carried
            else None
        )
        self.upsample = nnx.data(Conv(features, features, **kw) if level else None)

    @property
    def reference(self) -> ReferenceAttention | ReferenceResidual | None:
        """The level's injection, of whichever kind."""
        return self.reference_attention or self.reference_residual


class Decoder(nnx.Module):
    """Latents to frames, with details of the two input frames injected at every resolution."""

    def __init__(self, config: DecoderConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        features = config.width * config.multipliers[-1]
        self.post_quantization = nnx.data(
            Conv(config.latent_channels, config.z_channels, 1, **kw) if config.post_quantization else None
        )
        self.conv_in = Conv(config.z_channels, features, **kw)
        self.mid = Middle(
            [VideoBlock(features, features, config, **kw) for _ in range(2)], features, config.norm_groups, **kw
        )
        levels: list[UpLevel] = []
        for level in reversed(range(len(config.multipliers))):
            out, blocks = config.width * config.multipliers[level], []
            for _ in range(config.blocks_per_level + 1):
                blocks.append(VideoBlock(features, out, config, **kw))
                features = out
            levels.insert(0, UpLevel(level, blocks, out, config, **kw))
        self.up = nnx.List(levels)
        self.norm_out = GroupNorm(features, config.norm_groups, epsilon=EPSILON, **kw)
        self.final_reference_residual = nnx.data(ReferenceResidual(features, **kw) if config.references else None)
        self.conv_out = Conv(features, config.image_channels, **kw)
        self.conv_out_temporal = nnx.data(
            TemporalConv(config.image_channels, config.image_channels, **kw) if config.temporal else None
        )
        self.carried_pictures = nnx.data(CarriedPictures(features, **kw) if config.carried else None)

    def prepare_references(
        self, hidden: Sequence[Float[Array, "B 2 _ _ _"]], pictures: Float[Array, "B 2 H W 3"] | None = None
    ) -> References:
        """Keys, values and residuals of the two reference frames; computed once for both decoding passes.

        Args:
          hidden: the autoencoder's hidden states of the first and the last input frame, each (B, 2, H, W, C): one a
            level from full to lowest resolution, then the first convolution's.
          pictures: these frames, in [-1, 1]; needed where they are carried along motion.

        Raises:
          ValueError: if the decoder has no reference parts.
        """
        if self.final_reference_residual is None:
            raise ValueError("this decoder was built without reference parts")
        with jax.named_scope("prepare_references"):
            levels = [
                None if row.reference is None else row.reference.prepare(h)
                for row, h in zip(self.up, hidden[:-1], strict=True)
            ]
            head = self.final_reference_residual.prepare(hidden[-1])
        if self.carried_pictures is None:
            return References(levels, head)
        return References(levels, head, list(hidden[:-1]), pictures)

    def __call__(
        self,
        latents: Latents,
        references: References | None = None,
        motion: Motion | None = None,
        *,
        frames_per_chunk: Chunk = None,
        observe: Observer | None = None,
    ) -> Video:
        """Decodes a clip.

        Args:
          latents: (B, T, h, w, latent channels), already divided by the scale factor.
          references: from `prepare_references`; None skips every injection.
          motion: between the two reference frames, in pixels, if the references are carried; None carries nothing.
          frames_per_chunk: how many frames are worked on at a time; None for all.
          observe: called with each stage's name and output.

        Returns:
          (B, T, H, W, 3), in about [-1, 1] but not clamped.
        """
        observe = observe or (lambda name, value: None)
        chunk = frames_per_chunk
        if self.post_quantization is not None:
            latents = self.post_quantization(latents)
        h = self.conv_in(constrain(latents, "batch", "frames", None, None, None))
        observe("conv_in", h)

        # Middle.
        with jax.named_scope("mid"):
            h = run_block(partial(self.mid.blocks[0], chunk=chunk), h)
            observe("mid.blocks.0", h)
            h = run_block(lambda x: map_chunks(self.mid.attention, x, 1, chunk), h)
            observe("mid.attention", h)
            h = run_block(partial(self.mid.blocks[1], chunk=chunk), h)
            observe("mid.blocks.1", h)

        # Up.
        corrections = None
        for level in reversed(range(len(self.up))):
            row = self.up[level]
            with jax.named_scope(f"up.{level}"):
                for i, block in enumerate(row.blocks):
                    h = run_block(partial(block, chunk=chunk), h)
                    observe(f"up.{level}.blocks.{i}", h)
                if row.reference is not None and references is not None:
                    h = run_block(partial(row.reference, chunk=chunk), h, references.levels[level])
                    observe(f"up.{level}.reference", h)
                if row.carried is not None and references is not None and motion is not None:
                    h, corrections = self._carried(row.carried, level, h, references, motion, corrections, chunk)
                    observe(f"up.{level}.carried", h)
                if row.upsample is not None:
                    h = run_block(partial(_upsampled, row.upsample, chunk), h)
                    observe(f"up.{level}.upsample", h)

        # Head.
        with jax.named_scope("head"):
            drawn, h = run_block(partial(self._head, chunk), h, None if references is None else references.head)
            if self.final_reference_residual is not None and references is not None:
                observe("final_reference", h)
            if self.carried_pictures is None or references is None or motion is None:
                return drawn
            if references.pictures is None:
                raise ValueError("pictures are carried along motion: prepare the references with them")
            blend, pictures = self.carried_pictures, references.pictures
            return map_chunks(
                lambda part: blend(part[0], part[1], pictures, part[2]),
                (drawn, h, FrameMotion.of(motion, corrections)),
                1,
                chunk,
            )

    def _head(
        self, chunk: Chunk, h: VideoFeatures, of_references: Float[Array, "B 2 H W C"] | None
    ) -> tuple[Video, VideoFeatures]:
        """A clip (B, T, H, W, 3), and the features that it is drawn of."""
        h = map_chunks(lambda part: silu(self.norm_out(part, batch_axes=2)), h, 1, chunk)
        if self.final_reference_residual is not None and of_references is not None:
            h = self.final_reference_residual(h, of_references)
        drawn = map_chunks(self.conv_out, h, 1, chunk)
        return drawn if self.conv_out_temporal is None else self.conv_out_temporal(drawn), h

    def _carried(
        self,
        carried: CarriedReferences,
        level: int,
        h: VideoFeatures,
        references: References,
        motion: Motion,
        corrections: Corrections | None,
        chunk: Chunk,
    ) -> tuple[VideoFeatures, Corrections | None]:
        """Features of a level with what is carried to each frame, and the corrections of the motion so far."""
        if references.hidden is None:
            raise ValueError(
                "details are carried along motion: prepare the references with the encoder's hidden states"
            )
        size, hidden = h.shape[2:4], references.hidden[level]
        before = None if corrections is None else corrections.at_size(*size)
        frames = FrameMotion.of(motion.at_size(*size), before)

        def some_frames(part: tuple[VideoFeatures, FrameMotion]) -> tuple[VideoFeatures, Corrections]:
            return run_block(carried, part[0], hidden, part[1])

        h, more = map_chunks(some_frames, (h, frames), 1, chunk)
        if not self.config.corrects_motion:
            return h, None
        return h, more if before is None else Corrections(before.flows + more.flows, before.logit + more.logit)


def _upsampled(conv: Conv, chunk: Chunk, x: VideoFeatures) -> VideoFeatures:
    return map_chunks(lambda part: conv(upsample_nearest(part)), x, 1, chunk)
