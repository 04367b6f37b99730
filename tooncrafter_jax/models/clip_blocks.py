"""The transformer block that both CLIP towers are made of (spec.md sections 3.2 and 3.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from tooncrafter_jax.nn.attention import attention
from tooncrafter_jax.nn.layers import LayerNorm, Linear, gelu
from tooncrafter_jax.typing import Dtype, Tokens


class ClipAttention(nnx.Module):
    """Self-attention with one packed projection: the columns of `qkv` are queries, keys, values (quirks.md section 2).

    Args:
      width: features of the tokens.
      heads: number of heads, which divides `width`.
      causal: whether a token sees only itself and what is before it.

    Raises:
      ValueError: if `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split into {heads} heads")
        self.heads = heads
        self.causal = causal
        self.qkv = Linear(width, 3 * width, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.out = Linear(width, width, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

    def __call__(self, x: Tokens) -> Tokens:
        """Maps (B N width) to (B N width)."""
        qkv = rearrange(
            self.qkv(x), "B N (three heads head_dim) -> three B N heads head_dim", three=3, heads=self.heads
        )
        y = attention(qkv[0], qkv[1], qkv[2], causal=self.causal)
        return self.out(rearrange(y, "B N heads head_dim -> B N (heads head_dim)"))


class ClipMlp(nnx.Module):
    """Two linear maps with the exact GELU between them.

    Args:
      width: features of the tokens.
      hidden: features in between.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.hidden = Linear(width, hidden, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.out = Linear(hidden, width, rngs=rngs, dtype=dtype, param_dtype=param_dtype)

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
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        causal: bool = False,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.norm_1 = LayerNorm(width, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.attention = ClipAttention(width, heads, causal=causal, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.norm_2 = LayerNorm(width, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.mlp = ClipMlp(width, int(width * mlp_ratio), rngs=rngs, dtype=dtype, param_dtype=param_dtype)

    def __call__(self, x: Tokens) -> Tokens:
        """Maps (B N width) to (B N width)."""
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


def normal_parameter(rngs: nnx.Rngs, shape: tuple[int, ...], scale: float, dtype: Dtype) -> nnx.Param[jax.Array]:
    """A parameter drawn from a normal distribution of standard deviation `scale`."""
    return nnx.Param(nnx.initializers.normal(scale)(rngs.params(), shape, dtype))
