"""The transformer block that both CLIP towers are made of (spec sections 3.2 and 3.3)."""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tooncrafter_jax.nn.attention import Attends, attention
from tooncrafter_jax.nn.layers import LayerNorm, LayerOptions, Linear, gelu, normal
from tooncrafter_jax.typing import Tokens


class ClipAttention(Attends, nnx.Module):
    """Self-attention with one packed projection: the columns of `qkv` are queries, keys, values (spec section 13).

    Args:
      width: features of the tokens.
      heads: number of heads, which divides `width`.
      causal: whether a token sees only itself and what is before it.

    Raises:
      ValueError: if `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, *, causal: bool, **kw: Unpack[LayerOptions]) -> None:
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split into {heads} heads")
        self.heads = heads
        self.causal = causal
        self.qkv = Linear(width, 3 * width, **kw)
        self.out = Linear(width, width, **kw)

    def __call__(self, x: Tokens) -> Tokens:
        """Maps (B N width) to (B N width)."""
        qkv = rearrange(
            self.qkv(x), "B N (three heads head_dim) -> three B N heads head_dim", three=3, heads=self.heads
        )
        y = attention(qkv[0], qkv[1], qkv[2], causal=self.causal, prefer=self.attention_backend)
        return self.out(rearrange(y, "B N heads head_dim -> B N (heads head_dim)"))


class ClipMlp(nnx.Module):
    """Two linear maps with the exact GELU between them.

    Args:
      width: features of the tokens.
      hidden: features in between.
    """

    def __init__(self, width: int, hidden: int, **kw: Unpack[LayerOptions]) -> None:
        self.hidden = Linear(width, hidden, **kw)
        self.out = Linear(hidden, width, **kw)

    def __call__(self, x: Tokens) -> Tokens:
        """Maps (B N width) to (B N width)."""
        return self.out(gelu(self.hidden(x)))


class ClipBlock(nnx.Module):
    """A pre-norm block: x += attention(norm_1(x)); x += mlp(norm_2(x)).

    Args:
      width: features of the tokens.
      heads: number of heads, which divides `width`.
      mlp_ratio: hidden features of the MLP per feature of the tokens.
      causal: whether a token sees only itself and what is before it.
    """

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: float = 4.0, causal: bool = False, **kw: Unpack[LayerOptions]
    ) -> None:
        self.norm_1 = LayerNorm(width, **kw)
        self.attention = ClipAttention(width, heads, causal=causal, **kw)
        self.norm_2 = LayerNorm(width, **kw)
        self.mlp = ClipMlp(width, int(width * mlp_ratio), **kw)

    def __call__(self, x: Tokens) -> Tokens:
        """Maps (B N width) to (B N width)."""
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


def normal_parameter(shape: tuple[int, ...], scale: float, **kw: Unpack[LayerOptions]) -> nnx.Param:
    """A parameter drawn from a normal distribution of standard deviation `scale`."""
    return nnx.Param(normal(scale)(kw["rngs"].params(), shape, kw.get("param_dtype", jnp.float32)))
