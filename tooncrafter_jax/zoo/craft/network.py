"""CRAFT, which finds the characters of a text and what joins them to words (Baek et al., CVPR 2019, section 3.1 and
figure 2).

A VGG-16 with batch normalisation, widened at its deepest level by a dilated convolution, and a decoder in the manner of
a U-Net. It serves measuring alone: batch normalisation always uses the stored moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.nn.layers import Conv, LayerOptions, uniform_fan_in
from tooncrafter_jax.typing import Dtype

EPSILON = 1e-5
"""Added to the variance in batch normalisation: the default of the library that the published network was written
in.
"""
DILATION = 6
"""Cells between the taps of the first convolution behind VGG-16's; its padding is as large."""
SKIP = 1
"""Which convolution of a level the decoder sees. VGG-16's third of a level, where there is one, begins the next part of
the published network.
"""


class Up(NamedTuple):
    """Widths of a block of the decoder.

    Attributes:
      hidden: of the 1x1 convolution.
      out: of the 3x3 convolution after it.
    """

    hidden: int
    out: int


@dataclass(frozen=True)
class CraftConfig:
    """Architecture of the detector; the defaults are the published network's.

    Attributes:
      widths: channels of each level of VGG-16; a level after the first begins by halving the resolution.
      convs: 3x3 convolutions of each level, at least two; the published network leaves the very last one out.
      fc_width: channels of the two convolutions that stand for VGG-16's fully connected layers.
      ups: the decoder's blocks, coarsest first, one for each level after the first.
      head: channels of the convolutions before the last one: 3x3, and for the last of these 1x1.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    convs: tuple[int, ...] = (2, 2, 3, 3, 2)
    fc_width: int = 1024
    ups: tuple[Up, ...] = (Up(512, 256), Up(256, 128), Up(128, 64), Up(64, 32))
    head: tuple[int, ...] = (32, 32, 16, 16)

    @property
    def smallest_side(self) -> int:
        """Pixels that a picture's sides must have at least, so that one cell is left at the deepest level."""
        return 2 ** (len(self.widths) - 1)


class BatchNorm(nnx.Module):
    """Batch normalisation of the last axis with stored moments, computed in float32."""

    def __init__(self, features: int, *, param_dtype: Dtype = jnp.float32) -> None:
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.variance = nnx.BatchStat(jnp.ones((features,), jnp.float32))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalises (B, H, W, C)."""
        factor = jax.lax.rsqrt(self.variance[...] + EPSILON) * self.scale[...].astype(jnp.float32)
        centred = x.astype(jnp.float32) - self.mean[...]
        return (centred * factor + self.bias[...].astype(jnp.float32)).astype(x.dtype)


class ConvNorm(nnx.Module):
    """A convolution with its bias, and batch normalisation."""

    def __init__(self, in_features: int, features: int, kernel_size: int = 3, **kw: Unpack[LayerOptions]) -> None:
        self.conv = Conv(in_features, features, kernel_size, **kw)
        self.norm = BatchNorm(features, param_dtype=kw.get("param_dtype", jnp.float32))

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
        """Maps (B H W in) to (B H W features), before the ReLU."""
        return self.norm(self.conv(x))


class DilatedConv(nnx.Conv):
    """A 3x3 convolution whose taps are `DILATION` cells apart; the size stays."""

    def __init__(self, in_features: int, features: int, **kw: Unpack[LayerOptions]) -> None:
        init = uniform_fan_in(in_features * 9)
        super().__init__(
            in_features,
            features,
            (3, 3),
            padding=((DILATION, DILATION),) * 2,
            kernel_dilation=DILATION,
            kernel_init=init,
            bias_init=init,
            **kw,
        )


class UpBlock(nnx.Module):
    """A block of the decoder: a 1x1 and a 3x3 convolution, each normalised and with a ReLU."""

    def __init__(self, in_features: int, widths: Up, **kw: Unpack[LayerOptions]) -> None:
        self.mix = ConvNorm(in_features, widths.hidden, 1, **kw)
        self.refine = ConvNorm(widths.hidden, widths.out, 3, **kw)

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
        """Maps (B H W in) to (B H W out)."""
        return jax.nn.relu(self.refine(jax.nn.relu(self.mix(x))))


class Craft(nnx.Module):
    """Pictures to maps of characters and of what joins them.

    With float32 the convolutions keep their full precision on every device: what a set of clips holds must not depend
    on where it was measured.
    """

    def __init__(self, config: CraftConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.dtype = kw.get("dtype", jnp.float32)
        features, levels = 3, []
        for width, convs in zip(config.widths, config.convs, strict=True):
            levels.append(nnx.List([ConvNorm(features if i == 0 else width, width, **kw) for i in range(convs)]))
            features = width
        self.levels = nnx.List(levels)
        self.fc6 = DilatedConv(features, config.fc_width, **kw)
        self.fc7 = Conv(config.fc_width, config.fc_width, 1, **kw)
        features, ups = config.fc_width, []
        for width, up in zip(reversed(config.widths[1:]), config.ups, strict=True):
            ups.append(UpBlock(features + width, up, **kw))
            features = up.out
        self.ups = nnx.List(ups)
        inputs = (features, *config.head)
        sizes = (*(3,) * (len(config.head) - 1), 1, 1)
        outputs = (*config.head, 2)
        self.head = nnx.List([Conv(*layer, **kw) for layer in zip(inputs, outputs, sizes, strict=True)])

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w 2"]:
        """The score maps of pictures.

        Args:
          pixels: (B, H, W, 3) RGB, normalised by ImageNet's mean and deviation.

        Returns:
          (B, H // 2, W // 2, 2) float32: how near a cell is to a character's middle (the region score), and to the
          middle between two characters of a word (the affinity score). About 0 to 1, as no function bounds them.

        Raises:
          ValueError: if a side is shorter than `config.smallest_side`.
        """
        height, width = pixels.shape[1:3]
        if min(height, width) < self.config.smallest_side:
            least = self.config.smallest_side
            raise ValueError(f"a picture of {height}x{width} is too small: both sides must have {least} pixels")
        exact = jnp.dtype(self.dtype) == jnp.float32
        with jax.default_matmul_precision("highest") if exact else jax.named_scope("craft"):
            return self._scores(pixels)

    def _scores(self, x: jax.Array) -> jax.Array:
        skips = []
        for depth, level in enumerate(self.levels):
            x = x if depth == 0 else nnx.max_pool(x, (2, 2), strides=(2, 2))  # an odd last row or column is left out
            for i, unit in enumerate(level):
                x = unit(x)
                if unit is not self.levels[-1][-1]:  # no ReLU follows the published network's last one
                    x = jax.nn.relu(x)
                if depth > 0 and i == SKIP:
                    skips.append(x)
        x = self.fc7(self.fc6(nnx.max_pool(x, (3, 3), strides=(1, 1), padding="SAME")))
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(jnp.concatenate([resized(x, skip.shape[1:3]), skip], axis=-1))
        for conv in self.head[:-1]:
            x = jax.nn.relu(conv(x))
        return self.head[-1](x).astype(jnp.float32)


def resized(x: Float[Array, "B H W C"], size: tuple[int, ...]) -> Float[Array, "B h w C"]:
    """Bilinear enlargement in which the outer edges of both grids coincide."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear", antialias=False)
