"""The published sketch extractor, Anime2Sketch: a pix2pix-style U-Net from a drawing to its lines (spec section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.nn.layers import Conv, LayerOptions
from tooncrafter_jax.nn.transposed import KERNEL_SIZE, UpConv
from tooncrafter_jax.typing import Images

LEAKY_SLOPE = 0.2
INSTANCE_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Anime2SketchConfig:
    """Architecture of the extractor; the defaults are the published model's (spec section 7).

    Attributes:
      width: channels of the outermost level; a deeper level has twice those of the one before, up to `max_width`.
      max_width: channels of the deepest levels.
      levels: how often the resolution is halved.
      in_channels: of the picture.
      out_channels: of the sketch.
    """

    width: int = 64
    max_width: int = 512
    levels: int = 8
    in_channels: int = 3
    out_channels: int = 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, outermost first."""
        return tuple(min(self.width * 2**level, self.max_width) for level in range(self.levels))

    @property
    def pixel_multiple(self) -> int:
        """Height and width must be multiples of this many pixels."""
        return 2**self.levels


class Anime2Sketch(nnx.Module):
    """Draws the lines of a picture, dark on white."""

    def __init__(self, config: Anime2SketchConfig, **kw: Unpack[LayerOptions]) -> None:
        widths, last = config.widths, config.levels - 1
        inputs = (config.in_channels, *widths[:-1])
        outputs = (config.out_channels, *widths[:-1])
        self.config = config
        self.down = nnx.List(
            [Conv(inputs[i], widths[i], KERNEL_SIZE, stride=2, padding=1, **kw) for i in range(config.levels)]
        )
        # All but the innermost see the level's input beside what comes from below.
        self.up = nnx.List(
            [UpConv(widths[i] if i == last else 2 * widths[i], outputs[i], **kw) for i in range(config.levels)]
        )

    def before_tanh(self, images: Images) -> Float[Array, "B H W C"]:
        """The last layer's values, of any size; see `__call__`."""
        h, last = images, self.config.levels - 1
        inputs = []
        for i, conv in enumerate(self.down):
            inputs.append(h)
            h = conv(h if i == 0 else jax.nn.leaky_relu(h, LEAKY_SLOPE))
            if 0 < i < last:
                h = instance_norm(h)
        for i in reversed(range(self.config.levels)):
            h = self.up[i](jax.nn.relu(h))
            if i > 0:
                h = jnp.concatenate([inputs[i], instance_norm(h)], axis=-1)
        return h

    def __call__(self, images: Images) -> Float[Array, "B H W C"]:
        """Maps pictures to sketches.

        Args:
          images: (B, H, W, 3) RGB in [-1, 1]; both sides multiples of `config.pixel_multiple`, usually 512.

        Returns:
          (B, H, W, 1) in [-1, 1]: -1 where a line is, 1 where the paper is.
        """
        return jnp.tanh(self.before_tanh(images))


def instance_norm(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Brings each channel of each picture to mean 0 and variance 1, with the exact formula in float32."""
    values = x.astype(jnp.float32)
    mean = jnp.mean(values, (1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(values - mean), (1, 2), keepdims=True)
    return ((values - mean) * jax.lax.rsqrt(variance + INSTANCE_NORM_EPSILON)).astype(x.dtype)
