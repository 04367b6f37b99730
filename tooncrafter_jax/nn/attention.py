"""Scaled dot-product attention in one place, with back ends for CPU, GPU and TPU.

All back ends give equal results up to rounding; `auto` chooses by device, dtype and size:

| back end    | where    | memory of the scores     | used by `auto` for                                    |
|-------------|----------|--------------------------|-------------------------------------------------------|
| `xla`       | anywhere | all of them              | few scores                                            |
| `chunked`   | anywhere | one chunk of the queries | many scores and no fused kernel for this case         |
| `broadcast` | anywhere | all of them              | the CPU's short sequences (attention over the frames) |
| `cudnn`     | NVIDIA   | none (flash)             | fp16/bf16 and head_dim <= 128, from Ampere on         |
| `splash`    | TPU      | none (flash, Pallas)     | long sequences that its block sizes divide            |

On the CPU `chunked` has a form of its own, which holds a block of scores (`cpu_attention`).

The layers of a network (`Attends`) may prefer a back end: it computes what it can, `auto` chooses for the rest.

Compilers cannot split the fused kernels (`cudnn`, `splash`) over devices by themselves. Within `axis_rules` they run in
a `shard_map`, so that each device attends with its own clips, heads and queries to all of their keys; this is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn import cpu_attention
from tooncrafter_jax.nn.logical_axes import Names, shard_shape, sharding_of
from tooncrafter_jax.nn.platform import Target, current_platform, current_target, use_cpu_forms
from tooncrafter_jax.typing import Dtype, FloatArray

Backend = Literal["auto", "xla", "chunked", "broadcast", "cudnn", "splash"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

Queries = Float[Array, "B N heads head_dim"]
Keys = Float[Array, "#B M heads head_dim"]

MAX_SCORES = 2**26
"""Number of scores (batch x heads x queries x keys) of a device above which not all are materialised: 256 MiB in
float32.
"""
CHUNK_SCORES = 2**24
"""Number of scores of a device that a chunk may hold on an accelerator."""
CPU_CHUNK_SCORES = 2**20
"""Number of scores above which the CPU computes in blocks, and that a chunk of its gradient holds, for the cache."""
SPLASH_MIN_TOKENS = 1024
"""Below this, plain attention is as fast on a TPU."""
BROADCAST_MAX_TOKENS = 32
"""Longest sequence for which the CPU is faster without matrix products."""
MAX_FUSED_HEAD_DIM = 128
"""Widest head of the fused kernels."""


class Attends:
    """A layer that calls `attention(..., prefer=self.attention_backend)`.

    Attributes:
      attention_backend: what the network of the layer prefers; see `models.network.Network`.
    """

    attention_backend: Backend = "auto"


def check_backend(backend: str, dtype: Dtype, option: str) -> None:
    """Checks that a back end that a user asks for can run anything on the device that is traced for, in this dtype.

    Args:
      backend: the name.
      dtype: of the computation.
      option: where it was asked for, such as "--attention".

    Raises:
      UserError: there is no such back end, or it needs another device or dtype.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"{option} is '{backend}', which is no back end of attention: choose one of {', '.join(BACKENDS)}"
        )
    target = current_target()
    if backend == "cudnn" and not target.cudnn_attention:
        raise UserError(f"{option} is 'cudnn', which needs {CUDNN_NEEDS}, but this is {_called(target)}: use 'auto'")
    if backend == "cudnn" and jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        raise UserError(
            f"{option} is 'cudnn', which computes in bfloat16 or float16, not {jnp.dtype(dtype)}: use 'auto'"
        )
    if backend == "splash" and target.platform != "tpu":
        raise UserError(f"{option} is 'splash', which needs a TPU, but this is a {target.platform.upper()}: use 'auto'")


CUDNN_NEEDS = "an NVIDIA GPU of compute capability 8.0 (Ampere) or newer"


def _called(target: Target) -> str:
    return {"cpu": "a CPU", "gpu": "another GPU", "tpu": "a TPU"}[target.platform]


def attention(
    query: Queries,
    key: Keys,
    value: Keys,
    *,
    causal: bool = False,
    backend: Backend = "auto",
    prefer: Backend = "auto",
    rows: Names = ("batch", "frames"),
    tokens: Names = None,
) -> Queries:
    """softmax(q·k / sqrt(head_dim))·v with the softmax in float32.

    Args:
      query: (B, N, heads, head_dim).
      key: (B, M, heads, head_dim), or batch 1 to share the keys and values over the batch.
      value: same shape as `key`.
      causal: whether query i sees keys 0..i only (text tower).
      backend: see the table of this module; anything but `auto` must be able to run this case.
      prefer: with `auto`, the back end that is chosen if it can run this case here.
      rows: logical axes that are merged in axis B, the slowest first; where several devices work they share it so.
      tokens: logical axes that are merged in the queries' axis N; those of the keys stay whole. Not used with `causal`.

    Returns:
      (B, N, heads, head_dim) in the dtype of `query`.

    Raises:
      UserError: if the back end does not exist or cannot run this case here.
    """
    layout = sharding_of(query.shape, rows, None if causal else tokens, "heads", None)
    own = query.shape if layout is None else shard_shape(*layout, query.shape)
    sharers = prod(query.shape) // prod(own)
    if backend == "auto":
        backend = choose_backend(query, key, causal, own[1], sharers, prefer)
    if backend == "xla":
        return _plain(query, key, value, causal)
    if backend == "chunked":
        return (
            _in_blocks(query, key, value, causal) if use_cpu_forms() else _chunked(query, key, value, causal, sharers)
        )
    if backend == "broadcast":
        return _broadcast(query, key, value, causal)
    if backend == "cudnn":
        return _on_each_device(partial(_cudnn, causal=causal), layout, query, key, value)
    if backend == "splash":
        return _on_each_device(partial(_splash, causal=causal), layout, query, key, value)
    raise UserError(f"unknown attention back end '{backend}': choose one of {', '.join(BACKENDS)}")


def choose_backend(
    query: Queries,
    key: Keys,
    causal: bool,
    queries_per_device: int | None = None,
    sharers: int = 1,
    prefer: Backend = "auto",
) -> Backend:
    """The back end that `auto` stands for, from device, dtype and shapes alone.

    Args:
      query: (B, N, heads, head_dim).
      key: (B or 1, M, heads, head_dim).
      causal: whether query i sees keys 0..i only.
      queries_per_device: how many of the N queries a device has; all by default.
      sharers: devices that share the scores; what counts is the number that one of them holds.
      prefer: is chosen where it can run.
    """
    batch, queries, heads, _ = query.shape
    keys = key.shape[1]
    scores = batch * heads * queries * keys // sharers
    own_queries = queries if queries_per_device is None else queries_per_device
    can_run = {"cudnn": _can_cudnn(query), "splash": _can_splash(query, own_queries, keys)}
    if prefer != "auto" and can_run.get(prefer, True):
        return prefer
    if use_cpu_forms():
        if queries == keys and queries <= BROADCAST_MAX_TOKENS and batch > queries:
            return "broadcast"
        return "chunked" if scores > CPU_CHUNK_SCORES else "xla"
    long = queries >= SPLASH_MIN_TOKENS and keys >= SPLASH_MIN_TOKENS
    if can_run["cudnn"] and key.shape[0] == batch and keys > BROADCAST_MAX_TOKENS:
        return "cudnn"
    if can_run["splash"] and long and not causal:
        return "splash"
    return "chunked" if scores > MAX_SCORES else "xla"


def _can_cudnn(query: jax.Array) -> bool:
    return current_target().cudnn_attention and _suits_cudnn(query)


def _suits_cudnn(query: jax.Array) -> bool:
    width = query.shape[-1]
    return query.dtype in (jnp.bfloat16, jnp.float16) and width <= MAX_FUSED_HEAD_DIM and width % 8 == 0


def _can_splash(query: jax.Array, own_queries: int, keys: int) -> bool:
    blocks = _splash_block(own_queries) is not None and _splash_block(keys) is not None
    return current_platform() == "tpu" and query.shape[-1] <= MAX_FUSED_HEAD_DIM and blocks


def _softmax(scores: jax.Array, causal: bool, first_query: jax.Array | int = 0) -> jax.Array:
    if causal:
        rows = jnp.arange(scores.shape[-2])[:, None] + first_query
        scores = jnp.where(jnp.arange(scores.shape[-1])[None] <= rows, scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)


def _plain(
    query: jax.Array, key: jax.Array, value: jax.Array, causal: bool, first_query: jax.Array | int = 0
) -> jax.Array:
    scale = query.shape[-1] ** -0.5
    shared = key.shape[0] == 1 and query.shape[0] > 1
    if shared:
        key, value = key[0], value[0]
    keys = "mhd" if shared else "bmhd"
    scores = jnp.einsum(f"bnhd,{keys}->bhnm", query, key, preferred_element_type=jnp.float32) * scale
    weights = _softmax(scores, causal, first_query).astype(value.dtype)
    out = jnp.einsum(f"bhnm,{keys}->bnhd", weights, value, preferred_element_type=jnp.float32)
    return out.astype(query.dtype)


def _chunked(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool, sharers: int = 1) -> jax.Array:
    """Bounded memory: in chunks of the queries; exact, since a softmax row is never split.

    The bound is for each of the `sharers` devices that share the work. On the CPU, where this is the gradient of
    `_in_blocks` alone, it is also done head by head.
    """
    batch, queries, heads, head_dim = query.shape
    keys = key.shape[1]
    budget = CPU_CHUNK_SCORES if use_cpu_forms() else sharers * CHUNK_SCORES
    by_head = use_cpu_forms()
    rows = max(1, budget // (keys * (1 if by_head else batch * heads)))
    chunk = min(queries, rows)
    count = -(-queries // chunk)
    padded = jnp.pad(query, ((0, 0), (0, count * chunk - queries), (0, 0), (0, 0)))
    chunks = jnp.moveaxis(padded.reshape(batch, count, chunk, heads, head_dim), 1, 0)
    starts = jnp.arange(count) * chunk

    def one_chunk(item: tuple[Int[Array, ""], FloatArray]) -> FloatArray:
        start, part = item
        return _plain(part, key, value, causal, start)

    def one_chunk_by_head(item: tuple[Int[Array, ""], FloatArray]) -> FloatArray:
        start, part = item

        def one_example_and_head(index: Int[Array, ""]) -> FloatArray:
            example, head = index // heads, index % heads
            of_keys = jnp.minimum(example, key.shape[0] - 1)
            q = part[example, :, head][None, :, None]
            k = key[of_keys, :, head][None, :, None]
            v = value[of_keys, :, head][None, :, None]
            return _plain(q, k, v, causal, start)[0, :, 0]

        out = jax.lax.map(one_example_and_head, jnp.arange(batch * heads))
        return jnp.moveaxis(out.reshape(batch, heads, chunk, head_dim), 1, 2)

    step = one_chunk_by_head if by_head else one_chunk
    out = jax.lax.map(jax.checkpoint(step), (starts, chunks))
    return jnp.moveaxis(out, 0, 1).reshape(batch, count * chunk, heads, head_dim)[:, :queries]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _in_blocks(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    """The CPU's own form; its gradient is that of `_chunked`."""
    return cpu_attention.in_blocks(query, key, value, causal)


def _in_blocks_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, causal: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return cpu_attention.in_blocks(query, key, value, causal), (query, key, value)


def _in_blocks_backward(
    causal: bool, saved: tuple[jax.Array, jax.Array, jax.Array], of_out: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return jax.vjp(lambda q, k, v: _chunked(q, k, v, causal), *saved)[1](of_out)


_in_blocks.defvjp(_in_blocks_forward, _in_blocks_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _broadcast(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    """Multiply and sum instead of matrix products: for thousands of sequences of a few tokens on a CPU.

    Its gradient is that of `_plain`, which is the faster one there.
    """
    scale = query.shape[-1] ** -0.5
    q, k, v = (x.astype(jnp.float32) for x in (query, key, value))
    scores = jnp.sum(q[:, :, None] * k[:, None], axis=-1) * scale  # B N M heads
    weights = jnp.moveaxis(_softmax(jnp.moveaxis(scores, -1, 1), causal), 1, -1)
    return jnp.sum(weights[..., None] * v[:, None], axis=2).astype(query.dtype)


def _broadcast_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, causal: bool
) -> tuple[jax.Array, Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]]:
    return jax.vjp(lambda q, k, v: _plain(q, k, v, causal), query, key, value)


_broadcast.defvjp(_broadcast_forward, lambda _, pull_back, of_out: pull_back(of_out))


def _on_each_device(
    kernel: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    layout: tuple[Mesh, PartitionSpec] | None,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
) -> jax.Array:
    """kernel(query, key, value), by every device on its own part of the queries and the keys that belong to it.

    What the devices do not divide is computed by each of them.
    """

    def own_keys(q: Queries, k: Keys, v: Keys) -> Queries:
        if k.shape[0] != q.shape[0]:  # shared by the batch
            k, v = (jnp.broadcast_to(x, (q.shape[0], *x.shape[1:])) for x in (k, v))
        return kernel(q, k, v)

    if layout is None:
        return own_keys(query, key, value)
    mesh, spec = layout
    of_rows, _, of_heads, _ = spec
    keys = PartitionSpec(of_rows if key.shape[0] == query.shape[0] else None, None, of_heads, None)
    run = jax.shard_map(own_keys, mesh=mesh, in_specs=(spec, keys, keys), out_specs=spec, check_vma=False)
    return run(query, key, value)


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    target = current_target()
    if not target.cudnn_attention:
        raise UserError(f"the attention back end 'cudnn' needs {CUDNN_NEEDS}, not {_called(target)}: use 'auto'")
    if not _suits_cudnn(query):
        raise UserError(
            "the attention back end 'cudnn' needs bfloat16 or float16 and a head dimension up to 128 that 8 divides, "
            f"not {query.dtype} and {query.shape[-1]}: use 'auto'"
        )
    return jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation="cudnn")


def _splash_block(tokens: int) -> int | None:
    """The largest block of at most 1024 tokens, a multiple of 128, that divides `tokens`."""
    return next((block for block in range(1024, 0, -128) if tokens % block == 0), None)


def _splash(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    """Splash attention (Pallas) example by example; interpreted where there is no TPU, which only tests want."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        BlockSizes,
        CausalMask,
        FullMask,
        MultiHeadMask,
        make_splash_mha_single_device,
    )

    queries, heads, head_dim = query.shape[1:]
    keys = key.shape[1]
    block_q, block_kv = _splash_block(queries), _splash_block(keys)
    if block_q is None or block_kv is None:
        raise UserError(
            f"the attention back end 'splash' needs token counts that are multiples of 128, not {queries} and {keys}: "
            "use 'auto'"
        )
    mask = MultiHeadMask([(CausalMask if causal else FullMask)((queries, keys)) for _ in range(heads)])
    kernel = make_splash_mha_single_device(
        mask,
        block_sizes=BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_kv_compute=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_kv_dkv_compute=block_kv,
            block_q_dq=block_q,
            block_kv_dq=block_kv,
        ),
        interpret=current_platform() != "tpu",
    )
    heads_first = [jnp.swapaxes(x, 1, 2) for x in (query * head_dim**-0.5, key, value)]
    return jnp.swapaxes(jnp.asarray(jax.vmap(kernel)(*heads_first)), 1, 2).astype(query.dtype)
