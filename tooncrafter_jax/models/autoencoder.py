"""The KL encoder (spec section 4) and the blocks that it shares with the decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.nn.attention import Attends, attention
from tooncrafter_jax.nn.layers import NORM_GROUPS, Conv, GroupNorm, LayerOptions, Linear, silu
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.nn.remat import run_block
from tooncrafter_jax.typing import Latents, Video, VideoFeatures

EPSILON = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)
"""The log-variance of the posterior is clipped to this range (spec section 4)."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Architecture of the KL encoder; the defaults are the published model's (spec section 4).

    Attributes:
      width: channels at full resolution.
      multipliers: width multiplier of each level; each level after the first halves the resolution.
      blocks_per_level: residual blocks of a level.
      z_channels: channels of a latent inside the encoder.
      latent_channels: channels of a latent as the denoiser sees it.
      image_channels: channels of a picture.
      norm_groups: groups of all group normalisations; 32 in the published model.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks_per_level: int = 2
    z_channels: int = 4
    latent_channels: int = 4
    image_channels: int = 3
    norm_groups: int = NORM_GROUPS

    @property
    def downscaling(self) -> int:
        """Pixels of a latent cell's side."""
        return 2 ** (len(self.multipliers) - 1)


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents, before the scale factor.

    Attributes:
      mean, logvar: (B, T, h, w, latent_channels); `logvar` is clipped.
    """

    mean: Latents
    logvar: Latents

    @classmethod
    def from_moments(cls, moments: Float[Array, "B T h w C2"]) -> Posterior:
        """Splits the encoder's output into mean and clipped log-variance."""
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return cls(mean, jnp.clip(logvar, *LOGVAR_RANGE))

    @property
    def std(self) -> Latents:
        """Standard deviation."""
        return jnp.exp(0.5 * self.logvar)

    def sample(self, noise: Latents) -> Latents:
        """A sample, mean + std·noise; the published pipeline always samples, it never takes the mean."""
        return self.mean + self.std * noise


class Res(nnx.Module):
    """Residual block of a frame, without an embedding.

    Args:
      features: channels of the input, a multiple of the groups.
      out_features: channels of the output, a multiple of the groups.
      groups: of the normalisations.
    """

    def __init__(self, features: int, out_features: int, groups: int, **kw: Unpack[LayerOptions]) -> None:
        self.norm_in = GroupNorm(features, groups, epsilon=EPSILON, **kw)
        self.conv_in = Conv(features, out_features, **kw)
        self.norm_out = GroupNorm(out_features, groups, epsilon=EPSILON, **kw)
        self.conv_out = Conv(out_features, out_features, **kw)
        self.skip = nnx.data(None if features == out_features else Conv(features, out_features, 1, **kw))

    def __call__(self, x: VideoFeatures) -> VideoFeatures:
        """Maps (B T H W C) to (B T H W C')."""
        return self.end(self.begin(x))

    def begin(self, x: VideoFeatures) -> tuple[VideoFeatures, VideoFeatures]:
        """Its input (B T H W C), and what the first convolution makes of it (B T H W C')."""
        return x, self.conv_in(silu(self.norm_in(x, batch_axes=2)))

    def end(self, begun: tuple[VideoFeatures, VideoFeatures]) -> VideoFeatures:
        """The result (B T H W C') of what `begin` gives."""
        x, h = begun
        h = self.conv_out(silu(self.norm_out(h, batch_axes=2)))
        return constrain(h + (x if self.skip is None else self.skip(x)), "batch", "frames", None, None, None)


class Block(nnx.Module):
    """A residual block under the name `res`, beside which a video block has a `temporal` part.

    Args:
      features: channels of the input, a multiple of the groups.
      out_features: channels of the output, a multiple of the groups.
      groups: of the normalisations.
    """

    def __init__(self, features: int, out_features: int, groups: int, **kw: Unpack[LayerOptions]) -> None:
        self.res = Res(features, out_features, groups, **kw)

    def __call__(self, x: VideoFeatures) -> VideoFeatures:
        """Maps (B T H W C) to (B T H W C')."""
        return self.res(x)


class PixelAttention(Attends, nnx.Module):
    """Single-head self-attention over the pixels of a frame, with a residual (spec section 4).

    Args:
      features: channels, a multiple of the groups.
      groups: of the normalisation.
    """

    def __init__(self, features: int, groups: int, **kw: Unpack[LayerOptions]) -> None:
        self.norm = GroupNorm(features, groups, epsilon=EPSILON, **kw)
        self.query = Linear(features, features, **kw)
        self.key = Linear(features, features, **kw)
        self.value = Linear(features, features, **kw)
        self.out = Linear(features, features, **kw)

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Maps (B T H W C) to the same."""
        batch, frames, height, width, _ = x.shape
        h = self.norm(x, batch_axes=2)
        q, k, v = (
            rearrange(project(h), "b t h w c -> (b t) (h w) 1 c") for project in (self.query, self.key, self.value)
        )
        h = rearrange(
            attention(q, k, v, prefer=self.attention_backend),
            "(b t) (h w) 1 c -> b t h w c",
            b=batch,
            t=frames,
            h=height,
            w=width,
        )
        return x + self.out(h)


class Middle(nnx.Module):
    """Block, attention, block at the lowest resolution.

    Args:
      blocks: the two blocks, of whichever kind.
      features: channels, a multiple of the groups.
      groups: of the normalisation.
    """

    def __init__(self, blocks: list[nnx.Module], features: int, groups: int, **kw: Unpack[LayerOptions]) -> None:
        self.blocks = nnx.List(blocks)
        self.attention = PixelAttention(features, groups, **kw)


class DownLevel(nnx.Module):
    """Blocks of one resolution; all levels but the last end in a stride-2 convolution padded right and below only.

    Args:
      features: channels of the input, a multiple of the groups.
      out_features: channels of the output, a multiple of the groups.
      groups: of the normalisations.
      blocks: how many.
      downsamples: whether the convolution is there.
    """

    def __init__(
        self,
        features: int,
        out_features: int,
        groups: int,
        blocks: int,
        *,
        downsamples: bool,
        **kw: Unpack[LayerOptions],
    ) -> None:
        self.blocks = nnx.List(
            [Block(out_features if i else features, out_features, groups, **kw) for i in range(blocks)]
        )
        self.downsample = nnx.data(
            Conv(out_features, out_features, stride=2, padding=((0, 1), (0, 1)), **kw) if downsamples else None
        )


class Encoder(nnx.Module):
    """Pictures to moments, handing over the hidden states that the dual-reference decoder wants.

    Args:
      config: the architecture.
    """

    def __init__(self, config: AutoencoderConfig, **kw: Unpack[LayerOptions]) -> None:
        groups = config.norm_groups
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.conv_in = Conv(config.image_channels, config.width, **kw)
        levels, features = [], config.width
        for i, out_features in enumerate(widths):
            levels.append(
                DownLevel(
                    features, out_features, groups, config.blocks_per_level, downsamples=i < len(widths) - 1, **kw
                )
            )
            features = out_features
        self.down = nnx.List(levels)
        self.mid = Middle([Block(features, features, groups, **kw) for _ in range(2)], features, groups, **kw)
        self.norm_out = GroupNorm(features, groups, epsilon=EPSILON, **kw)
        self.conv_out = Conv(features, 2 * config.z_channels, **kw)

    def __call__(self, x: Video) -> tuple[VideoFeatures, list[VideoFeatures]]:
        """Maps (B T H W 3) to moments (B T h w 2z) and the hidden states; see `Autoencoder.__call__`."""
        first = h = self.conv_in(x)
        hidden = []
        for level, row in enumerate(self.down):
            with jax.named_scope(f"down.{level}"):
                for block in row.blocks:
                    h = run_block(block, h)
                hidden.append(h)
                if row.downsample is not None:
                    h = row.downsample(h)
        with jax.named_scope("mid"):
            for block in (self.mid.blocks[0], self.mid.attention, self.mid.blocks[1]):
                h = run_block(block, h)
        return self.conv_out(silu(self.norm_out(h, batch_axes=2))), [*hidden, first]


class Autoencoder(nnx.Module):
    """The encoder half of the KL autoencoder: pictures to posterior moments and hidden states."""

    def __init__(self, config: AutoencoderConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.encoder = Encoder(config, **kw)
        self.moments = Conv(2 * config.z_channels, 2 * config.latent_channels, 1, **kw)

    def __call__(self, images: Video) -> tuple[Float[Array, "B T h w C2"], list[VideoFeatures]]:
        """Encodes every frame by itself.

        Args:
          images: (B, T, H, W, 3) in [-1, 1]; H and W multiples of `config.downscaling`.

        Returns:
          The moments (see `Posterior.from_moments`), and the hidden states: the output of each level's last block
          before its downsampling, from full to lowest resolution, and last the output of the first convolution (spec
          section 4).

        Raises:
          ValueError: if H or W is no multiple of the downscaling.
        """
        height, width = images.shape[2:4]
        if height % self.config.downscaling or width % self.config.downscaling:
            raise ValueError(f"pictures must be multiples of {self.config.downscaling} pixels, not {height}x{width}")
        moments, hidden = self.encoder(constrain(images, "batch", "frames", None, None, None))
        return self.moments(moments), hidden
