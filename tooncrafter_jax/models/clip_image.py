"""The CLIP image tower: a picture to the tokens that the image projector reads (spec section 3.2).

The published model takes all tokens after the last block, without the tower's own final norm and projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.models.clip_blocks import ClipBlock, normal_parameter
from tooncrafter_jax.nn.layers import Conv, LayerNorm, LayerOptions


@dataclass(frozen=True)
class ClipImageConfig:
    """Sizes of the image tower; the defaults are those of OpenCLIP ViT-H-14.

    Attributes:
      image_size: side of the square picture in pixels, a multiple of `patch_size`.
      patch_size: side of a patch in pixels.
      width: features of a token.
      heads: attention heads, which divide `width`.
      layers: number of blocks.
      mlp_ratio: hidden features of the MLPs per feature of the tokens.
    """

    image_size: int = 224
    patch_size: int = 14
    width: int = 1280
    heads: int = 16
    layers: int = 32
    mlp_ratio: float = 4.0

    @property
    def tokens(self) -> int:
        """The class token and the patches."""
        return 1 + (self.image_size // self.patch_size) ** 2


class ClipImage(nnx.Module):
    """The image tower.

    Args:
      config: sizes.
    """

    def __init__(self, config: ClipImageConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.dtype = kw.get("dtype", jnp.float32)
        width, scale = config.width, config.width**-0.5  # the scale of OpenCLIP's embeddings
        self.patch_embedding = Conv(
            3,
            width,
            config.patch_size,
            stride=config.patch_size,
            padding=0,
            use_bias=False,
            **kw,
        )
        self.class_embedding = normal_parameter((width,), scale, **kw)
        self.positional_embedding = normal_parameter((config.tokens, width), scale, **kw)
        self.norm_pre = LayerNorm(width, **kw)
        self.blocks = nnx.List(
            ClipBlock(width, config.heads, mlp_ratio=config.mlp_ratio, **kw) for _ in range(config.layers)
        )

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
        """Encodes pictures.

        Args:
          pixels: (B, image_size, image_size, 3) from `clip_preprocess.preprocess`.

        Returns:
          (B, 1 + patches, width) in the compute dtype: the class token, then the patches row by row.

        Raises:
          ValueError: if the pictures have another size.
        """
        side = self.config.image_size
        if pixels.shape[1:] != (side, side, 3):
            raise ValueError(f"the image tower takes pictures of shape {(side, side, 3)}, not {pixels.shape[1:]}")
        patches = rearrange(self.patch_embedding(pixels), "B h w D -> B (h w) D")  # B 256 D
        first = jnp.broadcast_to(self.class_embedding[...].astype(self.dtype), (len(patches), 1, self.config.width))
        x = jnp.concatenate([first, patches], axis=1)  # B 257 D
        x = self.norm_pre(x + self.positional_embedding[...].astype(self.dtype))
        for i, block in enumerate(self.blocks):
            with jax.named_scope(f"block_{i}"):
                x = block(x)
        return x
