"""Holistically-nested edge detection: edges at five scales of a VGG-16, and their fusion (Xie & Tu, ICCV 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.nn.layers import Conv, LayerOptions
from tooncrafter_jax.typing import Images

MEAN_RGB = (122.67892, 116.66877, 104.00699)
"""What VGG-16 subtracts from pixels of 0 to 255; the network reads them as blue, green, red."""


@dataclass(frozen=True)
class HedConfig:
    """Architecture of the edge network; the defaults are VGG-16's convolutions (Xie & Tu, section 3).

    Attributes:
      widths: channels of each block; a block after the first begins by halving the resolution.
      convs: 3x3 convolutions of each block.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    convs: tuple[int, ...] = (2, 2, 3, 3, 3)


class HedBlock(nnx.Module):
    """Convolutions at one resolution, each with a ReLU."""

    def __init__(self, in_features: int, features: int, convs: int, **kw: Unpack[LayerOptions]) -> None:
        self.convs = nnx.List([Conv(in_features if i == 0 else features, features, **kw) for i in range(convs)])

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
        """Maps (B H W in) to (B H W features)."""
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x


class Hed(nnx.Module):
    """Finds edges: fine ones of every kind at the first scale, outlines of objects at the last."""

    def __init__(self, config: HedConfig, **kw: Unpack[LayerOptions]) -> None:
        inputs = (3, *config.widths[:-1])
        self.config = config
        self.blocks = nnx.List(
            [HedBlock(*sizes, **kw) for sizes in zip(inputs, config.widths, config.convs, strict=True)]
        )
        self.sides = nnx.List([Conv(width, 1, 1, **kw) for width in config.widths])
        self.fuse = Conv(len(config.widths), 1, 1, **kw)

    def __call__(self, images: Images) -> list[Float[Array, "B H W 1"]]:
        """Edge logits of pictures; their sigmoid is the probability of an edge.

        Args:
          images: (B, H, W, 3) RGB in [-1, 1], of any size.

        Returns:
          One (B, H, W, 1) for each block's side output, finest first, then their fusion. What is not used is not
          computed under `jax.jit`: the first takes two convolutions of thirteen.
        """
        height, width = images.shape[1:3]
        pixels = (images.astype(jnp.float32) + 1) * 127.5 - jnp.asarray(MEAN_RGB)
        h = pixels[..., ::-1]
        sides = []
        for i, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            h = block(h if i == 0 else max_pool(h))
            logits = side(h).astype(jnp.float32)
            # Antialiasing concerns shrinking alone, and would change nothing here.
            sides.append(jax.image.resize(logits, (*logits.shape[:1], height, width, 1), "linear", antialias=False))
        return [*sides, self.fuse(jnp.concatenate(sides, axis=-1)).astype(jnp.float32)]


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Halves height and width, rounding up, by the largest of 2x2 values; an odd last row or column stands alone."""
    return nnx.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
