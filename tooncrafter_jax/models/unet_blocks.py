"""Blocks of the denoiser: residual block, temporal convolution, spatial and temporal transformer.

The sketch encoder is built from the same spatial blocks. Every block maps a video (B T H W C) to a video, so that the
batch and the frames can each be sharded. Source: spec sections 2.3 to 2.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Unpack

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from tooncrafter_jax.models.clip_text import CONTEXT_LENGTH
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.nn.attention import Attends, attention
from tooncrafter_jax.nn.dropout import dropout
from tooncrafter_jax.nn.layers import Conv, GroupNorm, LayerNorm, LayerOptions, Linear, TemporalConv, gelu, silu
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.typing import Context, FloatArray, VideoFeatures

TEXT_TOKENS = CONTEXT_LENGTH
"""Tokens of the context that come from the prompt; all after them are image tokens (spec section 2.4)."""
IMAGE_TOKENS_PER_FRAME = 16
"""Image tokens that a frame gets when the context is routed frame by frame (spec section 2.4)."""
EMBEDDING_MULTIPLIER = 4
"""The time embedding is this many times as wide as the network (spec section 2.1)."""
RES_EPSILON = 1e-5
TRANSFORMER_EPSILON = 1e-6

DropoutKeys = Iterator[PRNGKeyArray | None]
"""A key for each dropout in turn, or None where there is none."""
Embedding = Float[Array, "B D"]
"""Of the time and the frame rate."""


class ContextKeys(NamedTuple):
    """Keys and values of one cross-attention, computed once for a whole sampling run.

    Attributes:
      key, value: (B, M, heads, head_dim) of the text tokens, shared by all frames.
      image_key, image_value: (B, T or 1, M, heads, head_dim) of the image tokens, for each frame or shared by all.
    """

    key: Float[Array, "B M heads head_dim"]
    value: Float[Array, "B M heads head_dim"]
    image_key: Float[Array, "B T M heads head_dim"] | None = None
    image_value: Float[Array, "B T M heads head_dim"] | None = None


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of one network have in common.

    Attributes:
      embedding_dim: width of the time embedding.
      context_dim: width of the context tokens.
      head_dim: channels of an attention head; a transformer of width C has C // head_dim heads.
      transformer_depth: transformer blocks in a transformer.
      dropout: probability inside residual blocks while training.
      temporal: whether a block has a temporal convolution and a temporal transformer.
      image_stream: whether cross-attention has keys and values of its own for the image tokens.
      norm_groups: groups of the group normalisations.
    """

    embedding_dim: int
    context_dim: int
    head_dim: int
    transformer_depth: int
    dropout: float
    temporal: bool
    image_stream: bool
    norm_groups: int

    @classmethod
    def of(cls, config: Any, *, temporal: bool, image_stream: bool) -> BlockOptions:
        """What the blocks of a network have in common, from its config (`UNetConfig` or `SketchEncoderConfig`).

        Args:
          config: has `width`, `context_dim`, `head_dim`, `transformer_depth`, `dropout` and `norm_groups`.
          temporal: see the attributes.
          image_stream: see the attributes.
        """
        return cls(
            embedding_dim=EMBEDDING_MULTIPLIER * config.width,
            context_dim=config.context_dim,
            head_dim=config.head_dim,
            transformer_depth=config.transformer_depth,
            dropout=config.dropout,
            temporal=temporal,
            image_stream=image_stream,
            norm_groups=config.norm_groups,
        )


class SpatialRes(nnx.Module):
    """Residual block of a frame with the time embedding added per channel (spec section 2.3).

    Args:
      features: channels of the input, a multiple of the groups.
      out_features: channels of the output, a multiple of the groups.
      options: of the network.
    """

    def __init__(self, features: int, out_features: int, options: BlockOptions, **kw: Unpack[LayerOptions]) -> None:
        self.norm_in = GroupNorm(features, options.norm_groups, epsilon=RES_EPSILON, **kw)
        self.conv_in = Conv(features, out_features, **kw)
        self.embedding = Linear(options.embedding_dim, out_features, **kw)
        self.norm_out = GroupNorm(out_features, options.norm_groups, epsilon=RES_EPSILON, **kw)
        self.conv_out = Conv(out_features, out_features, zero_init=True, **kw)
        self.skip = nnx.data(None if features == out_features else Conv(features, out_features, 1, **kw))
        self.dropout = options.dropout

    def __call__(self, x: VideoFeatures, embedding: Embedding, keys: DropoutKeys) -> VideoFeatures:
        """Maps (B T H W C) and (B D) to (B T H W C')."""
        h = self.conv_in(silu(self.norm_in(x, batch_axes=2)))
        h = h + self.embedding(silu(embedding))[:, None, None, None]
        h = dropout(silu(self.norm_out(h, batch_axes=2)), self.dropout, next(keys))
        return self.conv_out(h) + (x if self.skip is None else self.skip(x))


class TemporalStage(nnx.Module):
    """Norm over the whole clip, SiLU and a convolution over time.

    Args:
      features: channels, a multiple of the groups.
      options: of the network.
      zero_init: whether the convolution starts at zero.
    """

    def __init__(
        self, features: int, options: BlockOptions, *, zero_init: bool = False, **kw: Unpack[LayerOptions]
    ) -> None:
        self.norm = GroupNorm(features, options.norm_groups, epsilon=RES_EPSILON, **kw)
        self.conv = TemporalConv(features, features, zero_init=zero_init, **kw)


class TemporalConvBlock(nnx.Module):
    """Four temporal stages and a residual; the last stage starts at zero (spec section 2.3).

    Args:
      features: channels, a multiple of the groups.
      options: of the network.
    """

    STAGES = 4
    DROPOUT = 0.1
    """In stages 2 to 4, fixed in the published code."""

    def __init__(self, features: int, options: BlockOptions, **kw: Unpack[LayerOptions]) -> None:
        last = self.STAGES - 1
        self.stages = nnx.List(
            [TemporalStage(features, options, zero_init=i == last, **kw) for i in range(self.STAGES)]
        )

    def __call__(self, x: Float[Array, "B T H W C"], keys: DropoutKeys) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same."""
        h = x
        for i, stage in enumerate(self.stages):
            h = silu(stage.norm(h))
            if i > 0:
                h = dropout(h, self.DROPOUT, next(keys))
            h = stage.conv(h)
        return x + h


class FeedForward(nnx.Module):
    """GEGLU: value·gelu(gate), then back to the width (spec section 2.4).

    Args:
      features: channels of the tokens.
    """

    MULTIPLIER = 4

    def __init__(self, features: int, **kw: Unpack[LayerOptions]) -> None:
        self.gate_in = Linear(features, 2 * self.MULTIPLIER * features, **kw)
        self.out = Linear(self.MULTIPLIER * features, features, **kw)

    def __call__(self, x: Float[Array, "*S C"]) -> Float[Array, "*S C"]:
        """Maps (... C) to the same."""
        value, gate = jnp.split(self.gate_in(x), 2, axis=-1)
        return self.out(value * gelu(gate))


class SelfAttention(Attends, nnx.Module):
    """Multi-head self-attention with an output bias only.

    Args:
      features: channels of the tokens.
      heads: number of heads.
      head_dim: channels of a head; heads x head_dim need not be `features`.
    """

    def __init__(self, features: int, heads: int, head_dim: int, **kw: Unpack[LayerOptions]) -> None:
        inner = heads * head_dim
        self.query = Linear(features, inner, use_bias=False, **kw)
        self.key = Linear(features, inner, use_bias=False, **kw)
        self.value = Linear(features, inner, use_bias=False, **kw)
        self.out = Linear(inner, features, **kw)
        self.heads = heads

    def __call__(self, x: Float[Array, "A B N C"]) -> Float[Array, "A B N C"]:
        """Maps (A B N C) to the same; every (a, b) is a sequence of its own."""
        leading = x.shape[0]
        q, k, v = (
            rearrange(project(x), "a b n (heads d) -> (a b) n heads d", heads=self.heads)
            for project in (self.query, self.key, self.value)
        )
        out = attention(q, k, v, prefer=self.attention_backend)
        return self.out(rearrange(out, "(a b) n heads d -> a b n (heads d)", a=leading))


class CrossAttention(Attends, nnx.Module):
    """Attention to the text tokens plus, with an image stream, attention to the image tokens (spec section 2.4).

    Both streams share the query and the output projection; their softmaxes are separate.

    Args:
      features: channels of the tokens.
      heads: number of heads, of `options.head_dim` channels.
      options: of the network.
    """

    def __init__(self, features: int, heads: int, options: BlockOptions, **kw: Unpack[LayerOptions]) -> None:
        inner = heads * options.head_dim
        self.query = Linear(features, inner, use_bias=False, **kw)
        self.key = Linear(options.context_dim, inner, use_bias=False, **kw)
        self.value = Linear(options.context_dim, inner, use_bias=False, **kw)
        if options.image_stream:
            self.image_key = Linear(options.context_dim, inner, use_bias=False, **kw)
            self.image_value = Linear(options.context_dim, inner, use_bias=False, **kw)
        self.out = Linear(inner, features, **kw)
        self.heads = heads
        self.image_stream = options.image_stream

    def context_keys(self, context: Context, frames: int) -> ContextKeys:
        """Keys and values of a context (B, 77 + M, D) for a clip of `frames` frames.

        With 77 + 16·frames tokens, frame t sees image tokens 16t to 16t+15; otherwise every frame sees all of them.
        """

        def heads(x: FloatArray) -> FloatArray:
            return rearrange(x, "... (heads d) -> ... heads d", heads=self.heads)

        if not self.image_stream:
            return ContextKeys(heads(self.key(context)), heads(self.value(context)))
        text, image = context[:, :TEXT_TOKENS], context[:, TEXT_TOKENS:]
        per_frame = image.shape[1] == IMAGE_TOKENS_PER_FRAME * frames
        image = rearrange(image, "b (t m) d -> b t m d", t=frames if per_frame else 1)
        return ContextKeys(
            heads(self.key(text)), heads(self.value(text)), heads(self.image_key(image)), heads(self.image_value(image))
        )

    def __call__(self, x: Float[Array, "B T N C"], context: ContextKeys) -> Float[Array, "B T N C"]:
        """Maps (B T N C) to the same."""
        frames = x.shape[1]
        q = rearrange(self.query(x), "b t n (heads d) -> b t n heads d", heads=self.heads)
        every_frame = rearrange(q, "b t n heads d -> b (t n) heads d")
        attend = partial(attention, prefer=self.attention_backend)
        shared_out = partial(attend, rows="batch", tokens="frames")  # each device has its frames' queries, and all keys
        out = shared_out(every_frame, context.key, context.value)
        if context.image_key is not None and context.image_value is not None:
            if context.image_key.shape[1] == 1:
                out = out + shared_out(every_frame, context.image_key[:, 0], context.image_value[:, 0])
            else:
                q, k, v = (
                    rearrange(y, "b t n heads d -> (b t) n heads d")
                    for y in (q, context.image_key, context.image_value)
                )
                out = out + rearrange(attend(q, k, v), "(b t) n heads d -> b (t n) heads d", t=frames)
        return self.out(rearrange(out, "b (t n) heads d -> b t n (heads d)", t=frames))


class SpatialTransformerBlock(nnx.Module):
    """Self-attention, cross-attention and feed-forward, each after a layer norm.

    Args:
      features: channels of the tokens.
      heads: number of heads.
      options: of the network.
    """

    def __init__(self, features: int, heads: int, options: BlockOptions, **kw: Unpack[LayerOptions]) -> None:
        self.norm_1 = LayerNorm(features, **kw)
        self.self_attention = SelfAttention(features, heads, options.head_dim, **kw)
        self.norm_2 = LayerNorm(features, **kw)
        self.cross_attention = CrossAttention(features, heads, options, **kw)
        self.norm_3 = LayerNorm(features, **kw)
        self.feed_forward = FeedForward(features, **kw)

    def __call__(self, x: Float[Array, "B T N C"], context: ContextKeys) -> Float[Array, "B T N C"]:
        """Maps (B T N C) to the same."""
        x = x + self.self_attention(self.norm_1(x))
        x = x + self.cross_attention(self.norm_2(x), context)
        return x + self.feed_forward(self.norm_3(x))


class SpatialTransformer(nnx.Module):
    """Transformer over the pixels of each frame (spec section 2.4).

    Args:
      features: channels, a multiple of the groups and at least `options.head_dim`.
      options: of the network.
    """

    def __init__(self, features: int, options: BlockOptions, **kw: Unpack[LayerOptions]) -> None:
        heads = features // options.head_dim
        inner = heads * options.head_dim
        self.norm = GroupNorm(features, options.norm_groups, epsilon=TRANSFORMER_EPSILON, **kw)
        self.proj_in = Linear(features, inner, **kw)
        self.blocks = nnx.List(
            [SpatialTransformerBlock(inner, heads, options, **kw) for _ in range(options.transformer_depth)]
        )
        self.proj_out = Linear(inner, features, zero_init=True, **kw)

    def context_keys(self, context: Context, frames: int) -> list[ContextKeys]:
        """The keys and values of each block; see `CrossAttention.context_keys`."""
        return [block.cross_attention.context_keys(context, frames) for block in self.blocks]

    def __call__(self, x: Float[Array, "B T H W C"], context: list[ContextKeys]) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same."""
        height = x.shape[2]
        h = self.proj_in(rearrange(self.norm(x, batch_axes=2), "b t h w c -> b t (h w) c"))
        for block, keys in zip(self.blocks, context, strict=True):
            h = block(h, keys)
        return x + rearrange(self.proj_out(h), "b t (h w) c -> b t h w c", h=height)


class TemporalTransformerBlock(nnx.Module):
    """Two self-attentions over the frames and a feed-forward (spec section 2.5).

    Args:
      features: channels of the tokens.
      heads: number of heads.
      head_dim: channels of a head.
    """

    def __init__(self, features: int, heads: int, head_dim: int, **kw: Unpack[LayerOptions]) -> None:
        self.norm_1 = LayerNorm(features, **kw)
        self.self_attention_1 = SelfAttention(features, heads, head_dim, **kw)
        self.norm_2 = LayerNorm(features, **kw)
        self.self_attention_2 = SelfAttention(features, heads, head_dim, **kw)
        self.norm_3 = LayerNorm(features, **kw)
        self.feed_forward = FeedForward(features, **kw)

    def __call__(self, x: Float[Array, "B P T C"]) -> Float[Array, "B P T C"]:
        """Maps (B P T C), P pixels, to the same."""
        x = x + self.self_attention_1(self.norm_1(x))
        x = x + self.self_attention_2(self.norm_2(x))
        return x + self.feed_forward(self.norm_3(x))


class TemporalTransformer(nnx.Module):
    """Transformer over the frames at each pixel, without positions (spec sections 2.5 and 2.6).

    Args:
      features: channels, a multiple of the groups.
      heads: number of heads; the stem has 8 whatever its width, so that its inner width differs from `features`.
      options: of the network.
    """

    def __init__(self, features: int, heads: int, options: BlockOptions, **kw: Unpack[LayerOptions]) -> None:
        inner = heads * options.head_dim
        self.norm = GroupNorm(features, options.norm_groups, epsilon=TRANSFORMER_EPSILON, **kw)
        self.proj_in = Linear(features, inner, **kw)
        self.blocks = nnx.List(
            [TemporalTransformerBlock(inner, heads, options.head_dim, **kw) for _ in range(options.transformer_depth)]
        )
        self.proj_out = Linear(inner, features, zero_init=True, **kw)

    def __call__(self, x: Float[Array, "B T H W C"], motion: Motion | None = None) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same.

        With motion, the blocks run a second time, on tokens that are carried along it, and both results are averaged
        (spec section 14).
        """
        height = x.shape[2]
        h = constrain(rearrange(self.norm(x), "b t h w c -> b (h w) t c"), "batch", None, "frames", None)
        tokens = self.proj_in(h)
        h = self._blocks(tokens)
        if motion is not None:
            carried = motion.carried(rearrange(tokens, "b (h w) t c -> b t h w c", h=height))
            h = (h + self._blocks(rearrange(carried, "b t h w c -> b (h w) t c"))) / 2
        h = constrain(self.proj_out(h), "batch", None, "frames", None)
        return x + rearrange(h, "b (h w) t c -> b t h w c", h=height)

    def _blocks(self, tokens: FloatArray) -> FloatArray:
        h = constrain(tokens, "batch", "pixels", None, None)  # devices trade their frames for pixels
        for block in self.blocks:
            h = block(h)
        return h


class UNetBlock(nnx.Module):
    """Residual block, temporal convolution, spatial transformer, temporal transformer, as far as the network has them.

    Args:
      features: channels of the input, a multiple of the groups.
      out_features: channels of the output, a multiple of the groups.
      options: of the network.
      attends: whether the block has transformers.
    """

    def __init__(
        self, features: int, out_features: int, options: BlockOptions, *, attends: bool, **kw: Unpack[LayerOptions]
    ) -> None:
        temporal = options.temporal
        self.spatial_res = SpatialRes(features, out_features, options, **kw)
        self.temporal_conv = nnx.data(TemporalConvBlock(out_features, options, **kw) if temporal else None)
        self.spatial_transformer = nnx.data(SpatialTransformer(out_features, options, **kw) if attends else None)
        self.temporal_transformer = nnx.data(
            TemporalTransformer(out_features, out_features // options.head_dim, options, **kw)
            if attends and temporal
            else None
        )

    def __call__(
        self,
        x: VideoFeatures,
        embedding: Embedding,
        context: list[ContextKeys] | None,
        keys: DropoutKeys,
        *,
        motion: Motion | None = None,
        bypass_temporal: bool = False,
    ) -> VideoFeatures:
        """Maps (B T H W C) to (B T H W C').

        `motion` guides the temporal transformer; `bypass_temporal` skips the temporal parts.
        """
        x = constrain(x, "batch", "frames", None, None, None)
        x = self.spatial_res(x, embedding, keys)
        if self.temporal_conv is not None and not bypass_temporal:
            x = self.temporal_conv(x, keys)
        if self.spatial_transformer is not None:
            assert context is not None
            x = self.spatial_transformer(x, context)
        if self.temporal_transformer is not None and not bypass_temporal:
            x = self.temporal_transformer(x, motion)
        return constrain(x, "batch", "frames", None, None, None)


class TimeEmbedding(nnx.Module):
    """Linear, SiLU, Linear on a sinusoid (spec section 2.1).

    Args:
      features: width of the sinusoid.
      out_features: width of the embedding.
      zero_init: whether the second map starts at zero.
    """

    def __init__(
        self, features: int, out_features: int, *, zero_init: bool = False, **kw: Unpack[LayerOptions]
    ) -> None:
        self.hidden = Linear(features, out_features, **kw)
        self.out = Linear(out_features, out_features, zero_init=zero_init, **kw)

    def __call__(self, x: Embedding) -> Float[Array, "B E"]:
        """Maps (B D) to (B D')."""
        return self.out(silu(self.hidden(x)))
