"""The frame-independent sketch encoder: a ControlNet on the denoiser's spatial encoder half (spec section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Unpack

import jax
from flax import nnx
from jaxtyping import PRNGKeyArray

from tooncrafter_jax.models.unet import Level, down_levels, dropout_keys, encoder_blocks
from tooncrafter_jax.models.unet_blocks import BlockOptions, ContextKeys, Embedding, TimeEmbedding, UNetBlock
from tooncrafter_jax.nn.embeddings import sinusoidal_embedding
from tooncrafter_jax.nn.layers import NORM_GROUPS, Conv, LayerOptions, silu
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.nn.remat import run_block
from tooncrafter_jax.typing import Context, Hints, Latents, Timesteps, VideoFeatures

HINT_WIDTHS = (16, 16, 32, 32, 96, 96, 256)
"""Widths of the hint convolutions before the last, which has the encoder's width (spec section 7)."""
HINT_STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)
HINT_DOWNSCALING = prod(HINT_STRIDES)
"""Hints of the published model are this many times larger than latents, as pictures are."""


@dataclass(frozen=True)
class SketchEncoderConfig:
    """Architecture of the sketch encoder; the defaults are the published model's (spec section 7).

    Attributes are those of `UNetConfig`; `in_channels` counts the noisy latent alone, `hint_channels` the sketch's.
    `hint_downscaling`, 8 or a multiple of it, is the autoencoder's; beyond 8 the first hint convolution has a stride
    too.
    """

    in_channels: int = 4
    hint_channels: int = 1
    width: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    head_dim: int = 64
    transformer_depth: int = 1
    context_dim: int = 1024
    dropout: float = 0.0
    norm_groups: int = NORM_GROUPS
    hint_downscaling: int = HINT_DOWNSCALING

    @property
    def hint_strides(self) -> tuple[int, ...]:
        """Strides of the hint convolutions."""
        return (self.hint_downscaling // HINT_DOWNSCALING, *HINT_STRIDES[1:])

    @property
    def block_options(self) -> BlockOptions:
        """What all blocks have in common."""
        return BlockOptions.of(self, temporal=False, image_stream=False)


class HintEncoder(nnx.Module):
    """Eight convolutions from a sketch in pixels to features at latent resolution."""

    def __init__(self, config: SketchEncoderConfig, **kw: Unpack[LayerOptions]) -> None:
        widths = (config.hint_channels, *HINT_WIDTHS, config.width)
        last = len(config.hint_strides) - 1
        self.convs = nnx.List(
            [
                Conv(widths[i], widths[i + 1], stride=stride, zero_init=i == last, **kw)
                for i, stride in enumerate(config.hint_strides)
            ]
        )

    def __call__(self, hints: Hints) -> VideoFeatures:
        """Maps (B T H W 1) to (B T H/8 W/8 width)."""
        h = self.convs[0](hints)
        for conv in self.convs[1:]:
            h = conv(silu(h))
        return h


class SketchEncoder(nnx.Module):
    """Turns sketches and the noisy clip into residuals for the denoiser's skips and middle, frame by frame."""

    def __init__(self, config: SketchEncoderConfig, **kw: Unpack[LayerOptions]) -> None:
        options = config.block_options
        self.config = config
        self.time_embedding = TimeEmbedding(config.width, options.embedding_dim, **kw)
        self.conv_in = Conv(config.in_channels, config.width, **kw)
        self.hint = HintEncoder(config, **kw)
        levels, widths = down_levels(
            config.width, config.multipliers, config.blocks_per_level, config.attention_levels, options, **kw
        )
        self.down = nnx.List(levels)
        features = widths[-1]
        self.mid = Level([UNetBlock(features, features, options, attends=attends, **kw) for attends in (True, False)])
        self.skip_taps = nnx.List([Conv(width, width, 1, zero_init=True, **kw) for width in widths])
        self.mid_tap = Conv(features, features, 1, zero_init=True, **kw)

    def context_keys(self, context: Context) -> dict[str, list[ContextKeys]]:
        """Keys and values of the whole context, text and image tokens in one softmax, the same for every frame."""
        return {
            name: block.spatial_transformer.context_keys(context, 1)
            for name, block in encoder_blocks(self.down, self.mid)
            if block.spatial_transformer is not None
        }

    def hint_features(self, hints: Hints) -> VideoFeatures:
        """Features (B T h w width) of sketches (B T 8h 8w 1) in [0, 1], bright lines on black; independent of the
        time.
        """
        with jax.named_scope("hint"):
            return self.hint(hints)

    def __call__(
        self,
        x: Latents,
        timesteps: Timesteps,
        context: dict[str, list[ContextKeys]],
        hint_features: VideoFeatures,
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> list[VideoFeatures]:
        """The residuals before the control scale: one for each skip of the denoiser, then one for its middle.

        Args:
          x: (B, T, h, w, in_channels) noisy latents, without condition latents.
          timesteps: (B,) diffusion times.
          context: from `context_keys`.
          hint_features: from `hint_features`; added once, after the first convolution.
          dropout_key: turns dropout on.
        """
        keys = dropout_keys(dropout_key)

        def run(name: str, block: UNetBlock, h: VideoFeatures) -> VideoFeatures:
            def call(h: VideoFeatures, embedding: Embedding, context_keys: list[ContextKeys] | None) -> VideoFeatures:
                return block(h, embedding, context_keys, keys)

            with jax.named_scope(name):
                return run_block(call, h, embedding, context.get(name))

        embedding = self.time_embedding(sinusoidal_embedding(timesteps, self.config.width))
        h = constrain(self.conv_in(x) + hint_features, "batch", "frames", None, None, None)
        skips = [h]
        for level, row in enumerate(self.down):
            for i, block in enumerate(row.blocks):
                h = run(f"down.{level}.blocks.{i}", block, h)
                skips.append(h)
            if row.downsample is not None:
                h = row.downsample(h)
                skips.append(h)
        for i, block in enumerate(self.mid.blocks):
            h = run(f"mid.blocks.{i}", block, h)
        return [tap(skip) for tap, skip in zip(self.skip_taps, skips, strict=True)] + [self.mid_tap(h)]
