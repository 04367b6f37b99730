"""The denoising U-Net of ToonCrafter: a spatial Stable-Diffusion-2.1 U-Net with temporal parts between (spec section
2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.unet_blocks import (
    RES_EPSILON,
    TEXT_TOKENS,
    BlockOptions,
    ContextKeys,
    DropoutKeys,
    Embedding,
    TemporalTransformer,
    TimeEmbedding,
    UNetBlock,
)
from tooncrafter_jax.nn.embeddings import sinusoidal_embedding
from tooncrafter_jax.nn.layers import NORM_GROUPS, Conv, GroupNorm, LayerOptions, silu, upsample_nearest
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.nn.remat import run_block
from tooncrafter_jax.typing import Context, FloatArray, FramesPerSecond, Latents, Timesteps, VideoFeatures

Observer = Callable[[str, FloatArray], None]
"""Called with the name and the output of each block while the network is traced; for tests and reports."""

STEM_HEADS = 8
"""Heads of the stem's temporal transformer at every width (spec section 2.6)."""


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of the denoiser; the defaults are the published model's (spec section 2).

    Attributes:
      in_channels: channels of the noisy latent and the condition latent together.
      out_channels: channels of the prediction.
      width: channels at full latent resolution.
      multipliers: width multiplier of each level; each level after the first halves the resolution.
      blocks_per_level: residual blocks of a level on the way down; one more on the way up.
      attention_levels: levels with transformers; the middle always has them.
      head_dim: channels of an attention head.
      transformer_depth: blocks in a transformer.
      context_dim: width of the context tokens.
      dropout: probability in residual blocks while training.
      default_fps: frame rate assumed when none is given.
      temporal_length: frames of the clips that the model was trained on.
      norm_groups: groups of all group normalisations; 32 in the published model.
    """

    in_channels: int = 8
    out_channels: int = 4
    width: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    head_dim: int = 64
    transformer_depth: int = 1
    context_dim: int = 1024
    dropout: float = 0.1
    default_fps: int = 24
    temporal_length: int = 16
    norm_groups: int = NORM_GROUPS

    @property
    def latent_multiple(self) -> int:
        """The height and width of a latent must be multiples of this."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def most_reused_blocks(self) -> int:
        """The number of blocks on the way up that are at full resolution."""
        return self.blocks_per_level + 1

    def reused_channels(self, blocks: int) -> int:
        """Channels of the features that a call with so many outermost blocks starts from."""
        return self.width * self.multipliers[1 if blocks == self.most_reused_blocks else 0]

    @property
    def block_options(self) -> BlockOptions:
        """What all blocks have in common."""
        return BlockOptions.of(self, temporal=True, image_stream=True)


class Reused(NamedTuple):
    """What a former call left for a call that computes only the outermost blocks.

    Attributes:
      blocks: the last blocks on the way up that are computed, all at full resolution.
      features: what they start from: the output that `UNet.reused_output` names, of the former call.
    """

    blocks: int
    features: VideoFeatures


class Level(nnx.Module):
    """The blocks of one resolution, and the convolution that leaves it.

    Attributes:
      blocks: the `UNetBlock`s in the order in which they run.
      downsample: on the way down, a stride-2 convolution; None at the lowest level.
      upsample: on the way up, a convolution after doubling; None at the highest level.
    """

    def __init__(
        self, blocks: list[UNetBlock], *, downsample: Conv | None = None, upsample: Conv | None = None
    ) -> None:
        self.blocks = nnx.List(blocks)
        self.downsample = nnx.data(downsample)
        self.upsample = nnx.data(upsample)


def down_levels(
    width: int,
    multipliers: tuple[int, ...],
    blocks: int,
    attends: tuple[int, ...],
    options: BlockOptions,
    **kw: Unpack[LayerOptions],
) -> tuple[list[Level], list[int]]:
    """The encoder half that the denoiser and the sketch encoder have in common.

    Returns:
      The levels, and the widths of all skips in the order in which they are made (the stem's first).
    """
    levels: list[Level] = []
    skips = [width]
    features = width
    for level, multiplier in enumerate(multipliers):
        row = []
        for _ in range(blocks):
            row.append(UNetBlock(features, width * multiplier, options, attends=level in attends, **kw))
            features = width * multiplier
            skips.append(features)
        lowest = level == len(multipliers) - 1
        levels.append(Level(row, downsample=None if lowest else Conv(features, features, stride=2, **kw)))
        if not lowest:
            skips.append(features)
    return levels, skips


def encoder_blocks(down: Iterable[Level], mid: Level) -> Iterator[tuple[str, UNetBlock]]:
    """The blocks on the way down and in the middle with their paths, in the order in which they run."""
    for level, row in enumerate(down):
        yield from ((f"down.{level}.blocks.{i}", block) for i, block in enumerate(row.blocks))
    yield from ((f"mid.blocks.{i}", block) for i, block in enumerate(mid.blocks))


def dropout_keys(key: PRNGKeyArray | None) -> DropoutKeys:
    """A key for each dropout in turn; None for ever without a key (no dropout)."""
    if key is None:
        return repeat(None)
    return (jax.random.fold_in(key, i) for i in range(2**31))


class UNet(nnx.Module):
    """Predicts v from a noisy clip, its condition latents, the time, the context and the frame rate.

    Attributes:
      config: the architecture.
      down: levels from full to lowest resolution; `mid`: the middle; `up`: levels by number, run from last to first.
    """

    def __init__(self, config: UNetConfig, **kw: Unpack[LayerOptions]) -> None:
        options = config.block_options
        width, multipliers = config.width, config.multipliers
        self.config = config
        self.dtype = kw.get("dtype", jnp.float32)

        # Embeddings and stem.
        self.time_embedding = TimeEmbedding(width, options.embedding_dim, **kw)
        self.fps_embedding = TimeEmbedding(width, options.embedding_dim, zero_init=True, **kw)
        self.conv_in = Conv(config.in_channels, width, **kw)
        self.stem_temporal_transformer = TemporalTransformer(width, STEM_HEADS, options, **kw)

        # Down.
        levels, skips = down_levels(width, multipliers, config.blocks_per_level, config.attention_levels, options, **kw)
        self.down = nnx.List(levels)
        features = width * multipliers[-1]

        # Middle.
        self.mid = Level([UNetBlock(features, features, options, attends=attends, **kw) for attends in (True, False)])

        # Up: each block takes the current features and one skip.
        up: list[Level] = []
        for level in reversed(range(len(multipliers))):
            out, attends, blocks = width * multipliers[level], level in config.attention_levels, []
            for _ in range(config.blocks_per_level + 1):
                blocks.append(UNetBlock(features + skips.pop(), out, options, attends=attends, **kw))
                features = out
            up.insert(0, Level(blocks, upsample=Conv(out, out, **kw) if level else None))
        self.up = nnx.List(up)
        # Guidance multiplies what the two branches differ by, and their rounding with it (docs/precision.md).
        last: LayerOptions = {**kw, "dtype": jnp.float32}
        is_half = jnp.dtype(self.dtype) != jnp.float32
        self.norm_out = GroupNorm(width, config.norm_groups, epsilon=RES_EPSILON, **last)
        self.conv_out = Conv(width, config.out_channels, zero_init=True, full_products=is_half, **last)

    def named_blocks(self) -> Iterator[tuple[str, UNetBlock]]:
        """The blocks with their paths, in the order in which they run."""
        yield from encoder_blocks(self.down, self.mid)
        for level in reversed(range(len(self.up))):
            yield from ((f"up.{level}.blocks.{i}", block) for i, block in enumerate(self.up[level].blocks))

    def reused_output(self, blocks: int) -> str:
        """The name of the output, as `observe` gets it, from which a call with so many outermost blocks can start."""
        most = self.config.most_reused_blocks
        return f"up.0.blocks.{most - blocks - 1}" if blocks < most else f"up.1.blocks.{most - 1}"

    def context_keys(self, context: Context, frames: int) -> dict[str, list[ContextKeys]]:
        """Keys and values of the context for every cross-attention; they do not depend on the time.

        Args:
          context: (B, 77 + M, context_dim): text tokens, then image tokens. With M = 16·frames, frame t sees image
            tokens 16t to 16t+15; with any other M every frame sees all (spec section 2.4).
          frames: frames of the clip.

        Raises:
          ValueError: if the context has no image tokens.
        """
        if context.shape[1] <= TEXT_TOKENS:
            raise ValueError(f"the context needs {TEXT_TOKENS} text tokens and image tokens, not {context.shape[1]}")
        with jax.named_scope("context_keys"):
            return {
                name: block.spatial_transformer.context_keys(context, frames)
                for name, block in self.named_blocks()
                if block.spatial_transformer is not None
            }

    def __call__(
        self,
        x: Latents,
        timesteps: Timesteps,
        context: dict[str, list[ContextKeys]],
        fps: FramesPerSecond | None = None,
        *,
        controls: list[VideoFeatures] | None = None,
        motion: Sequence[Motion] | None = None,
        dropout_key: PRNGKeyArray | None = None,
        bypass_temporal: bool = False,
        observe: Observer | None = None,
        reused: Reused | None = None,
    ) -> Float[Array, "B T h w out"]:
        """Predicts v, in float32 whatever the dtype of the computation.

        Args:
          x: (B, T, h, w, in_channels), noisy latent and condition latent; h and w multiples of
            `config.latent_multiple`.
          timesteps: (B,) diffusion times.
          context: from `context_keys`.
          fps: (B,) frame rates; None for `config.default_fps`. Smaller means larger motion.
          controls: outputs of the sketch encoder, already scaled: one for each skip, then one for the middle.
          motion: between the key frames at each level's size (`Motion.at_levels`), which guides the temporal
            transformers of the stem, the way down and the middle (spec section 14); None: no guidance, which zero flows
            are not.
          dropout_key: turns dropout on.
          bypass_temporal: skips stem, temporal convolutions and temporal transformers (variant III of Table 3).
          observe: called with each block's name and output.
          reused: of a former call, nearly the same: then the stem and the outermost blocks alone are computed (Ma et
            al. 2024, "DeepCache", arXiv:2312.00858, section 3), with the controls of their skips.

        Raises:
          ValueError: if h or w do not fit the levels.
        """
        observe = observe or (lambda name, value: None)
        keys = dropout_keys(dropout_key)
        height, width = x.shape[2:4]
        multiple = self.config.latent_multiple
        if height % multiple or width % multiple:
            raise ValueError(f"latents must be multiples of {multiple} high and wide, not {height}x{width}")

        def run(name: str, block: UNetBlock, h: VideoFeatures, motion: Motion | None = None) -> VideoFeatures:
            def call(
                h: VideoFeatures, embedding: Embedding, context_keys: list[ContextKeys] | None, motion: Motion | None
            ) -> VideoFeatures:
                return block(h, embedding, context_keys, keys, motion=motion, bypass_temporal=bypass_temporal)

            with jax.named_scope(name):
                return run_block(call, h, embedding, context.get(name), motion)

        of_level: Sequence[Motion | None] = [None] * len(self.down) if motion is None else motion

        # Embeddings and stem.
        if fps is None:
            fps = jnp.full(x.shape[:1], self.config.default_fps, jnp.int32)
        of_time = self.time_embedding(sinusoidal_embedding(timesteps, self.config.width))
        of_fps = self.fps_embedding(sinusoidal_embedding(fps, self.config.width))
        observe("time_embedding", of_time)
        observe("fps_embedding", of_fps)
        embedding = of_time + of_fps  # B D
        h = constrain(self.conv_in(x), "batch", "frames", None, None, None)
        observe("conv_in", h)
        if not bypass_temporal:
            with jax.named_scope("stem_temporal_transformer"):
                h = run_block(self.stem_temporal_transformer, h, of_level[0])
        observe("stem_temporal_transformer", h)

        # Down.
        skips = [h]
        for level, row in enumerate(self.down):
            for i, block in enumerate(row.blocks):
                if reused is not None and i == reused.blocks - 1:
                    break
                name = f"down.{level}.blocks.{i}"
                h = run(name, block, h, of_level[level])
                observe(name, h)
                skips.append(h)
            if reused is not None:
                break
            if row.downsample is not None:
                h = row.downsample(h)
                observe(f"down.{level}.downsample", h)
                skips.append(h)

        # Middle.
        if reused is None:
            for i, block in enumerate(self.mid.blocks):
                h = run(f"mid.blocks.{i}", block, h, of_level[-1])
            observe("mid", h)
        if controls is not None:
            h = h + controls[-1] if reused is None else h
            of_skips = controls[: len(skips)]
            skips = [skip + control for skip, control in zip(skips, of_skips, strict=True)]

        # Up.
        first = 0
        if reused is not None:
            h, first = reused.features, self.config.most_reused_blocks - reused.blocks
        for level in reversed(range(len(self.up) if reused is None else 1)):
            row = self.up[level]
            for i, block in enumerate(row.blocks):
                if i < first:
                    continue
                name = f"up.{level}.blocks.{i}"
                h = run(name, block, jnp.concatenate([h, skips.pop()], axis=-1))
                if i == len(row.blocks) - 1 and row.upsample is not None:
                    h = row.upsample(upsample_nearest(h))
                observe(name, h)
        return self.conv_out(silu(self.norm_out(h, batch_axes=2)))
