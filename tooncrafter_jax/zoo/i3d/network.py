"""I3D, the inflated Inception network trained on Kinetics-400 (Carreira & Zisserman 2017, figure 3; spec section 10).

The Fréchet and kernel video distances compare its 400 logits. It serves evaluation alone: batch normalisation always
uses the stored moments and there is no dropout. `zoo.metric_weights.load_i3d` reads the published weights (RGB
stream).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.nn.layers import LayerOptions, Linear, uniform_fan_in
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.typing import Dtype, Video

EPSILON = 1e-3
"""Added to the variance in batch normalisation: the default of the library that the published network was written
in.
"""
DOWNSCALING = 32
"""Pixels of a cell's side in the last features."""
SHORTEST_CLIP = 9
"""The last average pooling spans two steps of 8 frames each, the second of which must have begun."""


class Mixed(NamedTuple):
    """Widths of an Inception block's convolutions.

    Attributes:
      branch_0: of the only 1x1x1 convolution.
      branch_1, branch_2: of a 1x1x1 and the 3x3x3 convolution after it.
      branch_3: of the 1x1x1 convolution after a max pooling.
    """

    branch_0: int
    branch_1: tuple[int, int]
    branch_2: tuple[int, int]
    branch_3: int

    @property
    def features(self) -> int:
        """Channels of the block's output."""
        return self.branch_0 + self.branch_1[1] + self.branch_2[1] + self.branch_3


@dataclass(frozen=True)
class I3DConfig:
    """Architecture; the defaults are the published network's.

    Attributes:
      image_size: height and width of the frames, a multiple of 32.
      stem: channels of the first three convolutions.
      mixed_3, mixed_4, mixed_5: the Inception blocks at a third, fourth and fifth spatial resolution.
      classes: how many logits.
    """

    image_size: int = 224
    stem: tuple[int, int, int] = (64, 64, 192)
    mixed_3: tuple[Mixed, ...] = (Mixed(64, (96, 128), (16, 32), 32), Mixed(128, (128, 192), (32, 96), 64))
    mixed_4: tuple[Mixed, ...] = (
        Mixed(192, (96, 208), (16, 48), 64),
        Mixed(160, (112, 224), (24, 64), 64),
        Mixed(128, (128, 256), (24, 64), 64),
        Mixed(112, (144, 288), (32, 64), 64),
        Mixed(256, (160, 320), (32, 128), 128),
    )
    mixed_5: tuple[Mixed, ...] = (Mixed(256, (160, 320), (32, 128), 128), Mixed(384, (192, 384), (48, 128), 128))
    classes: int = 400


class Unit(nnx.Module):
    """A convolution, batch normalisation with stored moments and a ReLU.

    Convolutions and poolings pad as TensorFlow's "SAME": so that a stride of s leaves ceil(n / s) cells, with the
    larger half of the padding behind.
    """

    def __init__(
        self,
        features: int,
        out_features: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        shape = (kernel_size,) * 3 + (features, out_features)
        self.kernel = nnx.Param(uniform_fan_in(prod(shape[:-1]))(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((out_features,), jnp.float32))
        self.variance = nnx.BatchStat(jnp.ones((out_features,), jnp.float32))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B t h w O"]:
        """Maps (B T H W C) to (B T' H' W' C')."""
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            (self.stride,) * 3,
            "SAME",
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
        factor = jax.lax.rsqrt(self.variance[...] + EPSILON)
        offset = self.bias[...].astype(jnp.float32) - self.mean[...] * factor
        return jax.nn.relu(y.astype(jnp.float32) * factor + offset).astype(self.dtype)


class Inception(nnx.Module):
    """Four branches side by side."""

    def __init__(self, features: int, widths: Mixed, **kw: Unpack[LayerOptions]) -> None:
        self.branch_0 = Unit(features, widths.branch_0, **kw)
        self.branch_1 = nnx.List(_pair(features, widths.branch_1, **kw))
        self.branch_2 = nnx.List(_pair(features, widths.branch_2, **kw))
        self.branch_3 = Unit(features, widths.branch_3, **kw)

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B t h w O"]:
        """Maps (B T H W C) to (B T H W C')."""
        branches = (
            self.branch_0(x),
            self.branch_1[1](self.branch_1[0](x)),
            self.branch_2[1](self.branch_2[0](x)),
            self.branch_3(max_pool(x, (3, 3, 3), (1, 1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)


def _pair(features: int, widths: tuple[int, int], **kw: Unpack[LayerOptions]) -> list[Unit]:
    return [Unit(features, widths[0], **kw), Unit(widths[0], widths[1], 3, **kw)]


class I3D(nnx.Module):
    """Clips to class logits.

    With float32 the convolutions keep their full precision on every device: a distance between clips must not depend on
    where it was measured.
    """

    def __init__(self, config: I3DConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.dtype = kw.get("dtype", jnp.float32)
        first, second, third = config.stem
        self.conv_1a = Unit(3, first, 7, stride=2, **kw)
        self.conv_2b = Unit(first, second, **kw)
        self.conv_2c = Unit(second, third, 3, **kw)
        features, rows = third, []
        for row in (config.mixed_3, config.mixed_4, config.mixed_5):
            blocks = []
            for widths in row:
                blocks.append(Inception(features, widths, **kw))
                features = widths.features
            rows.append(nnx.List(blocks))
        self.mixed_3, self.mixed_4, self.mixed_5 = rows
        self.logits = Linear(features, config.classes, **kw)

    def __call__(self, videos: Video) -> Float[Array, "B classes"]:
        """The logits of each clip, float32.

        Args:
          videos: (B, T, 224, 224, 3) in [-1, 1] (`config.image_size` for other architectures), at least 9 frames.

        Raises:
          ValueError: if the frames have another size or are fewer.
        """
        frames, height, width = videos.shape[1:4]
        size = self.config.image_size
        if (height, width) != (size, size):
            raise ValueError(f"I3D takes frames of {size}x{size}, not {height}x{width}: resize them first")
        if frames < SHORTEST_CLIP:
            raise ValueError(f"I3D takes clips of at least {SHORTEST_CLIP} frames, not {frames}")
        exact = jnp.dtype(self.dtype) == jnp.float32
        with jax.default_matmul_precision("highest") if exact else jax.named_scope("i3d"):
            return self._logits(constrain(videos, "batch", "frames", None, None, None))

    def _logits(self, x: jax.Array) -> jax.Array:
        h = max_pool(self.conv_1a(x), (1, 3, 3), (1, 2, 2))
        h = self.conv_2c(self.conv_2b(h))
        rows = (
            (self.mixed_3, (1, 3, 3), (1, 2, 2)),
            (self.mixed_4, (3, 3, 3), (2, 2, 2)),
            (self.mixed_5, (2, 2, 2), (2, 2, 2)),
        )
        for number, (row, window, strides) in enumerate(rows, start=3):
            h = max_pool(h, window, strides)
            for i, block in enumerate(row):
                with jax.named_scope(f"mixed_{number}.{i}"):
                    h = block(h)
        cells = ceil(self.config.image_size / DOWNSCALING)
        h = nnx.avg_pool(
            h.astype(jnp.float32), (2, cells, cells), (1, 1, 1)
        )  # (B T/8-1 1 1 C), windows overlap in time
        return self.logits(h[:, :, 0, 0]).astype(jnp.float32).mean(1)


def max_pool(
    x: Float[Array, "B T H W C"], window: tuple[int, int, int], strides: tuple[int, int, int]
) -> Float[Array, "B t h w C"]:
    """Max pooling of (B T H W C), padded as TensorFlow's "SAME"; what is padded never wins."""
    return nnx.max_pool(x, window, strides, padding="SAME")
