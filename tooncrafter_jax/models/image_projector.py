"""The image projector: picture tokens to image tokens of the context, some for every frame (spec section 3.1).

Learned queries read the tokens of one picture in a few rounds of cross-attention. The queries are the same for every
input; they are ordered frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.models.clip_blocks import normal_parameter
from tooncrafter_jax.nn.attention import Attends, attention
from tooncrafter_jax.nn.layers import LayerNorm, LayerOptions, Linear, gelu
from tooncrafter_jax.typing import Tokens


@dataclass(frozen=True)
class ImageProjectorConfig:
    """Sizes of the image projector; the defaults are those of the published model (spec section 3.1).

    Attributes:
      dim: features of a query.
      depth: number of layers.
      head_dim: features of a head.
      heads: attention heads; heads x head_dim need not be `dim`.
      queries_per_frame: image tokens that every frame gets.
      frames: number of frames.
      input_dim: features of the picture's tokens.
      output_dim: features of the image tokens, those of the context.
      ff_mult: hidden features of the feed-forward per feature of a query.
    """

    dim: int = 1024
    depth: int = 4
    head_dim: int = 64
    heads: int = 12
    queries_per_frame: int = 16
    frames: int = 16
    input_dim: int = 1280
    output_dim: int = 1024
    ff_mult: int = 4

    @property
    def queries(self) -> int:
        """Number of queries, which is the number of image tokens."""
        return self.frames * self.queries_per_frame


class QueryAttention(Attends, nnx.Module):
    """Queries attend to the tokens and to themselves; no projection has a bias.

    The columns of `key_value` are keys, then values.
    """

    def __init__(self, config: ImageProjectorConfig, **kw: Unpack[LayerOptions]) -> None:
        dim, inner = config.dim, config.heads * config.head_dim
        self.heads = config.heads
        self.norm_tokens = LayerNorm(dim, **kw)
        self.norm_queries = LayerNorm(dim, **kw)
        self.query = Linear(dim, inner, use_bias=False, **kw)
        self.key_value = Linear(dim, 2 * inner, use_bias=False, **kw)
        self.out = Linear(inner, dim, use_bias=False, **kw)

    def __call__(self, queries: Float[Array, "B M D"], tokens: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Maps queries (B M dim) to their change (B M dim), given tokens (B N dim)."""
        queries, tokens = self.norm_queries(queries), self.norm_tokens(tokens)
        rows = jnp.concatenate([tokens, queries], axis=1)  # B (N+M) dim
        q = rearrange(self.query(queries), "B M (heads head_dim) -> B M heads head_dim", heads=self.heads)
        kv = rearrange(
            self.key_value(rows), "B L (two heads head_dim) -> two B L heads head_dim", two=2, heads=self.heads
        )
        # the published code scales q and k by head_dim^-1/4 each: the same product
        y = attention(q, kv[0], kv[1], prefer=self.attention_backend)
        return self.out(rearrange(y, "B M heads head_dim -> B M (heads head_dim)"))


class FeedForward(nnx.Module):
    """A norm and two linear maps without biases, with the exact GELU between them."""

    def __init__(self, config: ImageProjectorConfig, **kw: Unpack[LayerOptions]) -> None:
        dim, inner = config.dim, config.dim * config.ff_mult
        self.norm = LayerNorm(dim, **kw)
        self.hidden = Linear(dim, inner, use_bias=False, **kw)
        self.out = Linear(inner, dim, use_bias=False, **kw)

    def __call__(self, x: Tokens) -> Tokens:
        """Maps (B M dim) to the change (B M dim)."""
        return self.out(gelu(self.hidden(self.norm(x))))


class ProjectorLayer(nnx.Module):
    """queries += attention(queries, tokens); queries += feed_forward(queries)."""

    def __init__(self, config: ImageProjectorConfig, **kw: Unpack[LayerOptions]) -> None:
        self.attention = QueryAttention(config, **kw)
        self.feed_forward = FeedForward(config, **kw)

    def __call__(self, queries: Float[Array, "B M D"], tokens: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Maps queries (B M dim) to queries (B M dim), given tokens (B N dim)."""
        queries = queries + self.attention(queries, tokens)
        return queries + self.feed_forward(queries)


class ImageProjector(nnx.Module):
    """The image projector.

    Args:
      config: sizes.
    """

    def __init__(self, config: ImageProjectorConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.dtype = kw.get("dtype", jnp.float32)
        self.queries = normal_parameter((1, config.queries, config.dim), config.dim**-0.5, **kw)
        self.proj_in = Linear(config.input_dim, config.dim, **kw)
        self.layers = nnx.List(ProjectorLayer(config, **kw) for _ in range(config.depth))
        self.proj_out = Linear(config.dim, config.output_dim, **kw)
        self.norm_out = LayerNorm(config.output_dim, **kw)

    def __call__(self, tokens: Float[Array, "B N input_dim"]) -> Float[Array, "B M output_dim"]:
        """Projects the tokens of pictures.

        Args:
          tokens: (B, N, input_dim) from the image tower; N is free.

        Returns:
          (B, frames x queries_per_frame, output_dim) in the compute dtype, frame by frame.
        """
        tokens = self.proj_in(tokens)  # B N dim
        queries = self.queries[...].astype(self.dtype)
        queries = jnp.broadcast_to(queries, (len(tokens), *queries.shape[1:]))  # B 256 dim
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layer_{i}"):
                queries = layer(queries, tokens)
        return self.norm_out(self.proj_out(queries))
