"""What the dual-reference decoder is made of: blocks over frames and time, and injected references (spec section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from tooncrafter_jax.models.autoencoder import EPSILON, Res
from tooncrafter_jax.models.carried_references import CarriedReferences
from tooncrafter_jax.nn.attention import Attends, Keys, attention
from tooncrafter_jax.nn.chunks import Chunk, map_chunks
from tooncrafter_jax.nn.frame_stages import FrameStages
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
from tooncrafter_jax.typing import FloatArray, VideoFeatures

TEMPORAL_EPSILON = 1e-5
REFERENCE_HEADS = 8
"""Heads of the reference attention at every width (spec section 5.4)."""
EndFrames = Bool[Array, "1 T 1 1 2"]
"""Which frames are the first of their clip, and which the last."""


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
        mix = jax.nn.sigmoid(self.mix_logit[...].astype(jnp.float32)).astype(x.dtype)
        of_x = self.norm_in.statistics(x)
        h = map_chunks(lambda part: self.conv_in(silu(self.norm_in.apply(part, *of_x))), x, 2, rows)
        of_h = self.norm_out.statistics(h)

        def mixed(parts: tuple[FloatArray, FloatArray]) -> FloatArray:
            x, h = parts
            h = self.conv_out(silu(self.norm_out.apply(h, *of_h)))
            return mix * (x + h) + (1 - mix) * x

        return map_chunks(mixed, (x, h), 2, rows, in_place=True)


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

    def __call__(self, x: VideoFeatures) -> VideoFeatures:
        """Maps (B T H W C) to (B T H W C')."""
        h = self.res(constrain(x, "batch", "frames", None, None, None))
        return h if self.temporal is None else self.temporal(h)

    def follow(self, stages: FrameStages) -> None:
        """Adds the block to the stages of a clip."""
        temporal, chunk = self.temporal, stages.chunk
        if chunk is None:
            stages.frames(self)
            return
        stages.frames(self.res.begin)
        stages.frames(self.res.end)
        if temporal is not None:
            stages.clip(lambda h: temporal(h, rows_per_chunk(h, chunk)))


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
        self, x: Float[Array, "B T H W C"], prepared: tuple[Keys, Keys], is_end: EndFrames | None = None
    ) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same."""
        del is_end
        frames, height, width = x.shape[1:4]
        q = rearrange(self.query(self.norm(x, batch_axes=2)), "b t h w (n d) -> b (t h w) n d", n=REFERENCE_HEADS)
        h = attention(q, *prepared, rows="batch", tokens="frames", prefer=self.attention_backend)
        h = rearrange(h, "b (t h w) n d -> b t h w (n d)", t=frames, h=height, w=width)
        return x + self.out(h)


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
        self, x: Float[Array, "B T H W C"], prepared: Float[Array, "B 2 H W C"], is_end: EndFrames | None = None
    ) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same; a frame that is both the first and the last gets both references.

        Args:
          x: frames.
          prepared: what `prepare` gave.
          is_end: of the frames of `x`; by default they are a whole clip.
        """
        is_end = end_frames(x.shape[1]) if is_end is None else is_end
        zero = jnp.zeros((), x.dtype)
        x = x + jnp.where(is_end[..., :1], prepared[:, :1].astype(x.dtype), zero)
        return x + jnp.where(is_end[..., 1:], prepared[:, 1:].astype(x.dtype), zero)


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

    def doubled(self, x: VideoFeatures) -> VideoFeatures:
        """What the next level is given (B T 2H 2W C)."""
        return x if self.upsample is None else self.upsample(upsample_nearest(x))

    @property
    def reference(self) -> ReferenceAttention | ReferenceResidual | None:
        """The level's injection, of whichever kind."""
        return self.reference_attention or self.reference_residual


def end_frames(frames: int) -> EndFrames:
    """Of a clip of so many frames."""
    number = jnp.arange(frames)[None, :, None, None, None]
    return jnp.concatenate([number == 0, number == frames - 1], axis=-1)


def rows_per_chunk(clip: VideoFeatures, frames_per_chunk: Chunk) -> Chunk:
    """As many rows of all frames as have the pixels of so many frames."""
    frames, height = clip.shape[1:3]
    return (
        None if frames_per_chunk is None or frames_per_chunk >= frames else max(1, height * frames_per_chunk // frames)
    )
