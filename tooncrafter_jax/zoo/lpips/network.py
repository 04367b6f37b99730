"""The learned perceptual distance LPIPS, version 0.1 (Zhang et al. 2018, section 3; spec sections 8.6 and 10).

Two pictures pass through a classification network; at five depths the features of each cell are brought to length 1,
and the squared differences are weighted channel by channel and averaged over the picture. VGG16 is the network of the
paper's training, AlexNet the usual one for evaluation and the cheaper one to train with.
`zoo.metric_weights.load_lpips` reads the published weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.nn.layers import Conv, LayerOptions
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.typing import Dtype

LpipsNet = Literal["vgg16", "alexnet"]
"""Names of the two networks."""

SHIFT = (-0.030, -0.088, -0.188)
"""Subtracted from red, green and blue in [-1, 1] (spec section 8.6)."""
SCALE = (0.458, 0.448, 0.450)
"""What the difference is divided by."""
EPSILON = 1e-10
"""Added to the length of a cell's features before the division."""


class ConvSpec(NamedTuple):
    """One convolution, followed by a ReLU.

    Attributes:
      features: output channels.
      kernel_size, stride, padding: in pixels, the same for both axes.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class LpipsConfig:
    """Architecture of the network whose features are compared.

    Attributes:
      stages: the convolutions of each depth; the features after a depth's last ReLU are compared.
      pools: side of the max-pooling window before each depth (stride 2, no padding), or 0 for none.
    """

    stages: tuple[tuple[ConvSpec, ...], ...]
    pools: tuple[int, ...]

    @classmethod
    def vgg16(cls) -> LpipsConfig:
        """The 13 convolutions of VGG16 (Simonyan & Zisserman 2015, configuration D)."""
        depths = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
        return cls(tuple((ConvSpec(features),) * count for features, count in depths), pools=(0, 2, 2, 2, 2))

    @classmethod
    def alexnet(cls) -> LpipsConfig:
        """The five convolutions of AlexNet in its one-column form (Krizhevsky 2014)."""
        return cls(
            stages=(
                (ConvSpec(64, 11, 4, 2),),
                (ConvSpec(192, 5, 1, 2),),
                (ConvSpec(384),),
                (ConvSpec(256),),
                (ConvSpec(256),),
            ),
            pools=(0, 3, 3, 0, 0),
        )

    @classmethod
    def of(cls, net: LpipsNet) -> LpipsConfig:
        """The config of this name."""
        return {"vgg16": cls.vgg16, "alexnet": cls.alexnet}[net]()


class Head(nnx.Module):
    """The weights of one depth's channels, which are never negative."""

    def __init__(self, features: int, *, param_dtype: Dtype = jnp.float32) -> None:
        self.weight = nnx.Param(jnp.full((features,), 1 / features, param_dtype))


class Lpips(nnx.Module):
    """Distances between pictures; differentiable everywhere, also where a network is dead.

    Convolutions run in `dtype`, lengths and averages in float32. With float32 the convolutions keep their full
    precision on every device, so that a distance does not depend on where it was measured; for speed in training use
    bfloat16.

    A new module's heads average the channels; it measures something sensible only with the published weights.
    """

    def __init__(self, config: LpipsConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.dtype = kw.get("dtype", jnp.float32)
        stages, features = [], 3
        for stage in config.stages:
            convs = []
            for conv in stage:
                convs.append(
                    Conv(features, conv.features, conv.kernel_size, stride=conv.stride, padding=conv.padding, **kw)
                )
                features = conv.features
            stages.append(nnx.List(convs))
        self.stages = nnx.List(stages)
        self.heads = nnx.List(
            [Head(stage[-1].features, param_dtype=kw.get("param_dtype", jnp.float32)) for stage in config.stages]
        )

    def features(self, images: Float[Array, "*B H W 3"]) -> list[Float[Array, "*B _ _ _"]]:
        """The features that are compared: (..., h, w, C) for each depth, of length 1 in every cell, or 0 where all are
        0.

        Args:
          images: (..., H, W, 3) in [-1, 1].

        Raises:
          ValueError: if the pictures are too small to leave a cell at the last depth.
        """
        batch, (height, width, _) = images.shape[:-3], images.shape[-3:]
        exact = jnp.dtype(self.dtype) == jnp.float32
        with jax.default_matmul_precision("highest") if exact else jax.named_scope("lpips"):
            h = images.reshape(-1, height, width, 3).astype(jnp.float32)
            h = ((h - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)).astype(self.dtype)
            h = constrain(h, "batch", None, None, None)
            found = []
            for stage, window in zip(self.stages, self.config.pools, strict=True):
                if window:
                    h = max_pool(h, window)
                for conv in stage:
                    h = jax.nn.relu(conv(h))
                if 0 in h.shape[1:3]:
                    raise ValueError(f"pictures of {height}x{width} are too small for this network")
                found.append(unit_length(h).reshape(*batch, *h.shape[1:]))
        return found

    def compare(
        self, first: Sequence[Float[Array, "*B _ _ _"]], second: Sequence[Float[Array, "*B _ _ _"]]
    ) -> Float[Array, "*B"]:
        """Distances between pictures whose `features` are known, e.g. one true clip against many generated ones."""
        total = jnp.zeros((), jnp.float32)
        for head, a, b in zip(self.heads, first, second, strict=True):
            weighted = jnp.square(a - b) * head.weight[...].astype(jnp.float32)
            total = total + weighted.sum(-1).mean((-2, -1))
        return total

    def __call__(self, first: Float[Array, "*B H W 3"], second: Float[Array, "*B H W 3"]) -> Float[Array, "*B"]:
        """The distance of each pair of pictures, float32; for equal ones 0 up to rounding (1e-12).

        Args:
          first: (..., H, W, 3) in [-1, 1], e.g. single pictures or clips; H and W at least 16 for VGG16 and 31 for
            AlexNet.
          second: likewise, of the same shape.

        Raises:
          ValueError: if the pictures are smaller.
        """
        return self.compare(self.features(first), self.features(second))


def max_pool(x: Float[Array, "N H W C"], window: int) -> Float[Array, "N h w C"]:
    """Max pooling of (N H W C) with stride 2 and no padding; a last row or column that fills no window is left out.

    Windows that do not overlap are a maximum over two axes, whose gradient is cheaper than that of a sliding window.
    Differs from the published code: equal largest values of such a window share its gradient.
    """
    if window != 2:
        return nnx.max_pool(x, (window, window), (2, 2))
    batch, height, width, channels = x.shape
    cells = x[:, : height // 2 * 2, : width // 2 * 2].reshape(batch, height // 2, 2, width // 2, 2, channels)
    return cells.max((2, 4), initial=-jnp.inf)


def unit_length(x: Float[Array, "*S C"]) -> Float[Array, "*S C"]:
    """Brings the last axis to length 1, in float32; where all is 0, value and gradient are 0.

    Differs from the published code: there the gradient of such a cell is not a number until the ReLU before drops it,
    which stops a search for such numbers (`jax_debug_nans`) at a place where nothing is wrong.
    """
    values = x.astype(jnp.float32)
    squares = jnp.square(values).sum(-1, keepdims=True)
    alive = squares > 0
    length = jnp.sqrt(jnp.where(alive, squares, 1.0))
    return values * jnp.where(alive, 1 / (length + EPSILON), 0.0)
