"""The CLIP text tower: token ids to the text part of the denoiser's context (spec section 3.3).

The published model takes the tokens before the last block ("penultimate"), normalises them with the final norm and uses
all 77 of them: no pooling, no projection, and padding is part of the context (spec section 13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from tooncrafter_jax.models.clip_blocks import ClipBlock, normal_parameter
from tooncrafter_jax.nn.layers import LayerNorm, LayerOptions, normal

CONTEXT_LENGTH = 77
"""Tokens of a prompt, with start, end and padding (spec section 3.3)."""
VOCABULARY_SIZE = 49408
"""Token ids of CLIP's byte-pair encoding (spec section 3.3)."""
TOKEN_SCALE = 0.02
"""Standard deviation of the initial token embedding (OpenCLIP)."""
POSITION_SCALE = 0.01
"""Standard deviation of the initial positional embedding (OpenCLIP)."""


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of the text tower; the defaults are those of OpenCLIP ViT-H-14.

    Attributes:
      vocabulary_size: number of token ids; with fewer than the tokenizer's, its ids are folded (taken modulo this), so
        that a small model keeps a small embedding.
      context_length: tokens of a prompt, padding included.
      width: features of a token.
      heads: attention heads, which divide `width`.
      layers: blocks of the published tower, whether they run or not.
      penultimate: whether the last block is left out, as the published model does; it then has no parameters here.
    """

    vocabulary_size: int = VOCABULARY_SIZE
    context_length: int = CONTEXT_LENGTH
    width: int = 1024
    heads: int = 16
    layers: int = 24
    penultimate: bool = True

    @property
    def blocks(self) -> int:
        """Number of blocks that run."""
        return self.layers - 1 if self.penultimate else self.layers


class ClipText(nnx.Module):
    """The text tower.

    Args:
      config: sizes.
    """

    def __init__(self, config: ClipTextConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.dtype, param_dtype = kw.get("dtype", jnp.float32), kw.get("param_dtype", jnp.float32)
        self.token_embedding = nnx.Embed(
            config.vocabulary_size,
            config.width,
            embedding_init=normal(TOKEN_SCALE),
            rngs=kw["rngs"],
            dtype=param_dtype,  # cast after the look-up: only the rows that are used
            param_dtype=param_dtype,
        )
        positions = (config.context_length, config.width)
        self.positional_embedding = normal_parameter(positions, POSITION_SCALE, **kw)
        self.blocks = nnx.List(ClipBlock(config.width, config.heads, causal=True, **kw) for _ in range(config.blocks))
        self.norm_final = LayerNorm(config.width, **kw)

    def __call__(self, token_ids: Int[Array, "B N"]) -> Float[Array, "B N D"]:
        """Encodes tokenised prompts.

        Args:
          token_ids: (B, context_length) in [0, VOCABULARY_SIZE), from `tokenizer()`.

        Returns:
          (B, context_length, width) in the compute dtype, one token per position, padding included.

        Raises:
          ValueError: if there are not `context_length` tokens.
        """
        if token_ids.shape[1] != self.config.context_length:
            raise ValueError(f"the text tower takes {self.config.context_length} tokens, not {token_ids.shape[1]}")
        if self.config.vocabulary_size < VOCABULARY_SIZE:
            token_ids = token_ids % self.config.vocabulary_size
        x = self.token_embedding(token_ids).astype(self.dtype)  # B 77 D
        x = x + self.positional_embedding[...].astype(self.dtype)
        for i, block in enumerate(self.blocks):
            with jax.named_scope(f"block_{i}"):
                x = block(x)
        return self.norm_final(x)
