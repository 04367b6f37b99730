"""Layers whose backward pass is written for the CPU: the numbers of automatic differentiation, sooner.

XLA's CPU compiler fuses the gradients that meet in a residual stream into everything that reads them, so that long sums
are computed again for every bias, and it sums over several axes without vector instructions. Here each gradient is
finished once (`optimization_barrier`) and summed as a matrix. Only `nn.layers` calls this, for float32 on one CPU
device: on meshes the merging of axes would move data.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tooncrafter_jax.nn.logical_axes import on_several_devices
from tooncrafter_jax.nn.platform import use_cpu_forms
from tooncrafter_jax.typing import AnyArray, Dtype

_finished = jax.lax.optimization_barrier


def use_cpu_gradients(x: AnyArray, dtype: Dtype) -> bool:
    """Whether a layer that computes in `dtype` should use this module for `x`."""
    return use_cpu_forms() and x.dtype == jnp.float32 and dtype == jnp.float32 and not on_several_devices()


def linear(
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"], bias: Float[Array, "O"] | None
) -> Float[Array, "*B O"]:
    """x·kernel + bias over the last axis; x (..., I), kernel (I, O), bias (O)."""
    y = _product(x.reshape(-1, x.shape[-1]), kernel)
    return (y if bias is None else add_bias(y, bias)).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(saved: tuple[jax.Array, jax.Array], of_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    of_y, x = _finished((of_y, x))
    return of_y @ kernel.T, jax.lax.dot_general(x, of_y, (((0,), (0,)), ((), ())))


_product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def add_bias(y: Float[Array, "*B C"], bias: Float[Array, "C"]) -> Float[Array, "*B C"]:
    """Adds a bias (C) to the last axis of y (..., C)."""
    return y + bias


def _add_bias_backward(_: None, of_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    of_y = _finished(of_y)
    return of_y, jnp.sum(_finished(of_y.reshape(-1, of_y.shape[-1])), axis=0)


add_bias.defvjp(lambda y, bias: (y + bias, None), _add_bias_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(
    x: Float[Array, "N M C"], scale: Float[Array, "C"], bias: Float[Array, "C"], groups: int, epsilon: float
) -> Float[Array, "N M C"]:
    """Normalises every row of `x` (N, M, C) over M and each group of channels, then scales and shifts each channel."""
    return _group_norm_forward(x, scale, bias, groups, epsilon)[0]


def _per_group(means: jax.Array, groups: int) -> jax.Array:
    """The mean of each group of channels (N, C), repeated for its channels: (N, 1, C)."""
    grouped = means.reshape(len(means), groups, -1)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(len(means), 1, -1)


def _group_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean = _per_group(jnp.mean(x, 1), groups)
    inverse_std = jax.lax.rsqrt(_per_group(jnp.mean(jnp.square(x - mean), 1), groups) + epsilon)
    return (x - mean) * (inverse_std * scale) + bias, (x, scale, mean, inverse_std)


def _group_norm_backward(
    groups: int, _: float, saved: tuple[jax.Array, ...], of_y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse_std = saved
    of_y, rows = _finished(of_y), x.shape[1]
    of_bias = jnp.sum(of_y, 1)  # N C, still to be summed over N
    of_scale = jnp.sum(of_y * (x - mean), 1) * inverse_std[:, 0]
    of_bias, of_scale = _finished((of_bias, of_scale))
    along_mean = _per_group(of_bias * scale, groups) / rows
    along_std = _per_group(of_scale * scale, groups) / rows
    of_x = inverse_std * (of_y * scale - along_mean - (x - mean) * (inverse_std * along_std))
    return _finished(of_x), jnp.sum(of_scale, 0), jnp.sum(of_bias, 0)


group_norm.defvjp(_group_norm_forward, _group_norm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "N C"], scale: Float[Array, "C"], bias: Float[Array, "C"], epsilon: float
) -> Float[Array, "N C"]:
    """Normalises every row of `x` (N, C), then scales and shifts each channel."""
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean = jnp.mean(x, -1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.mean(jnp.square(x - mean), -1, keepdims=True) + epsilon)
    return (x - mean) * inverse_std * scale + bias, (x, scale, mean, inverse_std)


def _layer_norm_backward(
    _: float, saved: tuple[jax.Array, ...], of_y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse_std = saved
    of_y = _finished(of_y)
    normal = (x - mean) * inverse_std
    of_normal = of_y * scale
    along_mean, along_std = _finished(
        (jnp.mean(of_normal, -1, keepdims=True), jnp.mean(of_normal * normal, -1, keepdims=True))
    )
    of_x = inverse_std * (of_normal - along_mean - normal * along_std)
    return _finished(of_x), jnp.sum(_finished(of_y * normal), 0), jnp.sum(of_y, 0)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
