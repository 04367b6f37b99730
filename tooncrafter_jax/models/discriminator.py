"""The patch discriminator that the decoder is trained against (spec section 8.6; Isola et al. 2017, section 3.2.2).

Every frame has its own logits, patch by patch. Batch normalisation is functional: a call never changes the module, so
the discriminator may be bound once and differentiated with respect to its parameters or to its images at will.

- `discriminator(images)` normalises with the statistics of this very call, as the published training does for the
  pictures of the data set and for the decoder's pictures apart;
- `discriminator.logits_and_statistics(images)` does the same and hands out what the running statistics become, which
  the training step returns beside its other state;
- `discriminator(images, training=False)` normalises with the running statistics.

Running statistics are `nnx.BatchStat`, all else `nnx.Param`: `nnx.split(module, nnx.Param, nnx.BatchStat)` separates
them; in the flat parameters of a `Network` their paths end in `STATISTICS`. Only the others are to be given to an
optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.nn.layers import Conv, LayerOptions, normal
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.typing import DeviceParams, Dtype

KERNEL_SIZE = 4
"""Side of every convolution; all have one pixel of padding (spec section 8.6)."""
INITIAL_STD = 0.02
"""Standard deviation of new convolution kernels around 0 and of new normalisation scales around 1 (spec section
8.6).
"""
LEAKY_SLOPE = 0.2
"""Slope of the activation below zero (spec section 8.6)."""
WIDEST_MULTIPLIER = 8
"""Widths double from layer to layer up to this multiple of the base width."""
MOMENTUM = 0.1
"""Share of a call's statistics in the running ones: the default of the published code's batch normalisation."""
EPSILON = 1e-5
"""Added to the variance: likewise."""
STATISTICS = ("mean", "variance")
"""Last names of the running statistics in a flat dict."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Architecture of the discriminator; the defaults are those that the decoder is trained with (spec section 8.6).

    Attributes:
      in_channels: channels of a picture.
      width: channels after the first convolution.
      layers: convolutions of stride 2; one of stride 1 and the one that gives the logits follow.
    """

    in_channels: int = 3
    width: int = 64
    layers: int = 3

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after every convolution but the last."""
        return tuple(self.width * min(2**i, WIDEST_MULTIPLIER) for i in range(self.layers + 1))

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of all convolutions."""
        return (2,) * self.layers + (1, 1)

    def patches(self, side: int) -> int:
        """How many patches there are along a side of so many pixels; not above 0 if the side is too short."""
        for stride in self.strides:
            side = (side + 2 - KERNEL_SIZE) // stride + 1
        return side


class BatchNorm(nnx.Module):
    """Normalises each channel over all other axes, with statistics in float32 and without side effects.

    The statistics are of the whole array, on however many devices it lies; differs from the published code: there each
    process has its own.
    """

    def __init__(
        self, features: int, *, rngs: nnx.Rngs, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32
    ) -> None:
        self.scale = nnx.Param(normal(INITIAL_STD, mean=1.0)(rngs.params(), (features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.variance = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.dtype = dtype

    def moments(self, x: Float[Array, "*B C"]) -> tuple[Float[Array, "C"], Float[Array, "C"]]:
        """Mean and (biased) variance (C,) of `x` (..., C), by the exact two-pass formula."""
        axes = tuple(range(x.ndim - 1))
        values = x.astype(jnp.float32)
        mean = values.mean(axes)
        return mean, jnp.square(values - mean).mean(axes)

    def updated(self, mean: Float[Array, "C"], variance: Float[Array, "C"], count: int) -> DeviceParams:
        """The running statistics after a call with these moments of `count` values; the running variance is
        unbiased.
        """
        unbiased = variance * (count / max(count - 1, 1))
        return {
            "mean": (1 - MOMENTUM) * self.mean[...] + MOMENTUM * jax.lax.stop_gradient(mean),
            "variance": (1 - MOMENTUM) * self.variance[...] + MOMENTUM * jax.lax.stop_gradient(unbiased),
        }

    def __call__(
        self, x: Float[Array, "*B C"], mean: Float[Array, "C"], variance: Float[Array, "C"]
    ) -> Float[Array, "*B C"]:
        """Normalises `x` (..., C) with these moments (C,)."""
        factor = jax.lax.rsqrt(variance + EPSILON) * self.scale[...].astype(jnp.float32)
        return ((x.astype(jnp.float32) - mean) * factor + self.bias[...].astype(jnp.float32)).astype(self.dtype)


class Discriminator(nnx.Module):
    """Convolutions that give a logit for each of the overlapping patches of a picture: high for data.

    The first and the last convolution have a bias and no normalisation, those between the reverse.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        kw: LayerOptions = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        widths = (config.in_channels, *config.widths, 1)
        last = len(config.strides) - 1
        self.config = config
        self.convs = nnx.List(
            [
                Conv(
                    widths[i],
                    widths[i + 1],
                    KERNEL_SIZE,
                    stride=stride,
                    padding=1,
                    use_bias=i in (0, last),
                    kernel_init=normal(INITIAL_STD),
                    **kw,
                )
                for i, stride in enumerate(config.strides)
            ]
        )
        self.norms = nnx.List([BatchNorm(features, **kw) for features in config.widths[1:]])

    def __call__(self, images: Float[Array, "*B H W C"], *, training: bool = True) -> Float[Array, "*B h w 1"]:
        """The logits of pictures.

        Args:
          images: (..., H, W, in_channels) in [-1, 1], e.g. single pictures or clips.
          training: normalises with the statistics of these pictures, else with the running ones.

        Returns:
          One number for each patch, of 70x70 pixels with the default config; unbounded, in float32.

        Raises:
          ValueError: if the pictures are smaller than a patch's stride allows or have the wrong number of channels.
        """
        return self._logits(images, training)[0]

    def logits_and_statistics(self, images: Float[Array, "*B H W C"]) -> tuple[Float[Array, "*B h w 1"], DeviceParams]:
        """The logits of `__call__` while training, and what the running statistics become.

        Args:
          images: (..., H, W, in_channels) in [-1, 1].

        Returns:
          The numbers of `__call__`, and the new running statistics by their path in the flat parameters of a `Network`;
          no gradient flows through them.

        Raises:
          ValueError: as `__call__`.
        """
        return self._logits(images, True)

    def _logits(self, images: jax.Array, training: bool) -> tuple[jax.Array, DeviceParams]:
        height, width, channels = images.shape[-3:]
        if channels != self.config.in_channels:
            raise ValueError(f"the discriminator takes {self.config.in_channels} channels, not {channels}")
        if min(self.config.patches(height), self.config.patches(width)) < 1:
            raise ValueError(f"pictures of {height}x{width} are too small for a discriminator of {self.config}")
        h = constrain(images.reshape(-1, height, width, channels), "batch", None, None, None)
        statistics: DeviceParams = {}
        for i, conv in enumerate(self.convs[:-1]):
            h = conv(h)
            if i:
                norm = self.norms[i - 1]
                mean, variance = norm.moments(h) if training else (norm.mean[...], norm.variance[...])
                if training:
                    new = norm.updated(mean, variance, prod(h.shape[:-1]))
                    statistics |= {f"norms.{i - 1}.{name}": value for name, value in new.items()}
                h = norm(h, mean, variance)
            h = jax.nn.leaky_relu(h, LEAKY_SLOPE)
        logits = self.convs[-1](h).astype(jnp.float32)
        return logits.reshape(*images.shape[:-3], *logits.shape[-3:]), statistics
