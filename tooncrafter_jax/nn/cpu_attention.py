"""Attention on the CPU, a block of scores at a time.

The scores of a block stay in the cache between the two products; maximum and sum of the softmax are carried from block
to block of the keys: an online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867; in blocks, Dao et al. 2022,
"FlashAttention", arXiv:2205.14135, section 3.1). Only `nn.attention` calls this.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tooncrafter_jax.nn.cpu_loops import largest_divisor, one_by_one

QUERIES = 2048
"""Most queries of a block: the more, the fewer times keys and values are read."""
KEYS = 1024
"""Most keys of a block."""


class _Sums(NamedTuple):
    """What a group of heads has summed over the keys that it has seen.

    Attributes:
      most: largest score of each query.
      values: sum of exp(score - most)·[value, 1].
    """

    most: Float[Array, "G N 1"]
    values: Float[Array, "G N D+1"]


def in_blocks(
    query: Float[Array, "B N heads D"],
    key: Float[Array, "#B M heads D"],
    value: Float[Array, "#B M heads D"],
    causal: bool,
) -> Float[Array, "B N heads D"]:
    """softmax(q·k / sqrt(D))·v with sums in float32; gradients are those of `nn.attention`, not of this.

    Args:
      query: (B, N, heads, D).
      key: (B, M, heads, D), or batch 1 to share the keys and values over the batch.
      value: same shape as `key`.
      causal: whether query i sees keys 0..i only.

    Returns:
      (B, N, heads, D) in the dtype of `query`.
    """
    batch, queries, heads, head_dim = query.shape
    keys = key.shape[1]
    group = largest_divisor(heads, QUERIES * KEYS // (min(queries, QUERIES) * min(keys, KEYS)))
    groups = heads // group

    def one_group(index: Int[Array, ""]) -> Float[Array, "N G D"]:
        example, number = index // groups, index % groups

        def of_group(x: jax.Array) -> Float[Array, "G N D"]:
            row = jnp.minimum(example, x.shape[0] - 1)
            size = (1, x.shape[1], group, head_dim)
            return jnp.swapaxes(jax.lax.dynamic_slice(x, (row, 0, number * group, 0), size)[0], 0, 1)

        return jnp.swapaxes(_of_heads(of_group(query), of_group(key), of_group(value), causal), 0, 1)

    out = one_by_one(one_group, batch * groups, query).reshape(batch, groups, queries, group, head_dim)
    return jnp.moveaxis(out, 1, 2).reshape(query.shape)


def _of_heads(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> Float[Array, "G N D"]:
    """Attention of a group of heads, block by block of the queries."""
    group, queries, head_dim = q.shape
    v = jnp.pad(v, ((0, 0), (0, 0), (0, 1)), constant_values=1)  # a product sums weights faster than a sum does
    count = -(-queries // QUERIES)
    if count == 1:
        return _of_queries(q, k, v, 0, causal)
    size = -(-queries // count)
    padded = jnp.pad(q, ((0, 0), (0, count * size - queries), (0, 0)))

    def one_block(index: Int[Array, ""]) -> Float[Array, "G N D"]:
        start = index * size
        return _of_queries(jax.lax.dynamic_slice_in_dim(padded, start, size, 1), k, v, start, causal)

    out = jnp.moveaxis(one_by_one(one_block, count, q), 0, 1)
    return out.reshape(group, count * size, head_dim)[:, :queries]


def _of_queries(
    q: jax.Array, k: jax.Array, v: jax.Array, first_query: Int[Array, ""] | int, causal: bool
) -> Float[Array, "G N D"]:
    """Attention of a block of queries, block by block of the keys."""
    keys = k.shape[1]
    size = -(-keys // -(-keys // KEYS))
    scale = q.shape[-1] ** -0.5
    rows = jnp.arange(q.shape[1])[:, None] + first_query

    def with_block(before: _Sums | None, first_key: Int[Array, ""] | int, size: int) -> _Sums:
        of_k, of_v = (jax.lax.dynamic_slice_in_dim(x, first_key, size, 1) for x in (k, v))
        scores = _product("gnd,gmd->gnm", q, of_k)
        if causal:  # the first block is never hidden as a whole, so that `most` is a number
            scores = jnp.where(jnp.arange(size)[None] + first_key <= rows, scores, -jnp.inf)
        most = jnp.max(scores, -1, keepdims=True)
        most = most if before is None else jnp.maximum(before.most, most)
        weights = jnp.exp((scores - most) * scale)
        values = _product("gnm,gmd->gnd", weights.astype(v.dtype), of_v)
        if before is not None:
            values += before.values * jnp.exp((before.most - most) * scale)
        return _Sums(most, values)

    sums = with_block(None, 0, size)
    whole = keys // size
    if whole > 1:
        sums = jax.lax.fori_loop(1, whole, lambda i, before: with_block(before, i * size, size), sums)
    if keys % size:
        sums = with_block(sums, whole * size, keys % size)
    return (sums.values[..., :-1] / sums.values[..., -1:]).astype(q.dtype)


def _product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
