"""Products with stored weights whose gradients keep the weights' own precision.

A layer computes in bfloat16 with weights that training stores in float32. Were the weight cast first and multiplied
then, as is usual, its gradient would be a bfloat16 array: rounded on each device, and summed over the devices in
bfloat16. Here the gradient of a weight is accumulated and given in the dtype in which the layer sees it, so that
devices sum float32. Whoever wants the sum in bfloat16, for half the traffic, shows the layer a bfloat16 copy of the
weight (`training.sharding.gathering_view`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from tooncrafter_jax.nn.logical_axes import Names, sharding_of
from tooncrafter_jax.nn.platform import current_platform
from tooncrafter_jax.typing import Dtype, FloatArray

Product = Callable[[jax.Array, jax.Array], jax.Array]


def linear(product: Product, x: Float[Array, "*B I"], kernel: Float[Array, "I O"]) -> Float[Array, "*B O"]:
    """x·kernel over the last axis, in the dtype of x (..., I); kernel (I, O).

    Args:
      product: computes it for two arrays of one dtype.
      x: what is multiplied.
      kernel: as it is stored; its gradient has its dtype.
    """
    return product(x, kernel) if kernel.dtype == x.dtype else _linear(product, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(product: Product, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return product(x, kernel.astype(x.dtype))


def _linear_forward(product: Product, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    narrow = kernel.astype(x.dtype)
    return product(x, narrow), (x, narrow, _of_dtype(kernel))


def _linear_backward(product: Product, saved: tuple[jax.Array, ...], of_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, narrow, like = saved
    leading = tuple(range(x.ndim - 1))
    of_kernel = jax.lax.dot_general(x, of_y, ((leading, leading), ((), ())), preferred_element_type=like.dtype)
    return product(of_y, narrow.T), of_kernel


_linear.defvjp(_linear_forward, _linear_backward)


class Window(NamedTuple):
    """How a kernel moves over the two axes of a picture: its strides, and the zeros (before, after) at their ends."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]


def convolution(
    product: Product,
    x: Float[Array, "N H W C"],
    kernel: Float[Array, "kh kw C O"],
    window: Window,
    rows: Names,
) -> Float[Array, "N h w O"]:
    """A convolution of x (N, H, W, C) with a kernel (h, w, C, O), in the dtype of x.

    Args:
      product: computes it for two arrays of one dtype.
      x: what is convolved.
      kernel: as it is stored; its gradient has its dtype.
      window: that `product` moves over x.
      rows: logical axes that are merged in axis N.
    """
    return product(x, kernel) if kernel.dtype == x.dtype else _convolution(product, window, rows, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _convolution(product: Product, window: Window, rows: Names, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return product(x, kernel.astype(x.dtype))


def _convolution_forward(
    product: Product, window: Window, rows: Names, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    narrow = kernel.astype(x.dtype)
    return product(x, narrow), (x, narrow, _of_dtype(kernel))


def _convolution_backward(
    product: Product, window: Window, rows: Names, saved: tuple[jax.Array, ...], of_y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, narrow, like = saved
    (of_x,) = jax.vjp(lambda x: product(x, narrow), x)[1](of_y)
    gradient = partial(_kernel_gradient, shape=narrow.shape[:2], window=window)
    if current_platform() != "gpu":
        return of_x, gradient(x, of_y, dtype=like.dtype)
    # cuDNN gives no float32 for bfloat16 operands: each device rounds its own share, and float32 is what they sum.
    layout = sharding_of(x.shape, rows, None, None, None)
    if layout is None:
        return of_x, gradient(x, of_y, dtype=x.dtype).astype(like.dtype)
    mesh, spec = layout
    shared = spec[0] or ()

    def own_share(x: FloatArray, of_y: FloatArray) -> FloatArray:
        return jax.lax.psum(gradient(x, of_y, dtype=x.dtype).astype(like.dtype), shared)

    run = jax.shard_map(own_share, mesh=mesh, in_specs=(spec, spec), out_specs=PartitionSpec(), check_vma=False)
    return of_x, run(x, of_y)


_convolution.defvjp(_convolution_forward, _convolution_backward)


def _kernel_gradient(
    x: jax.Array, of_y: jax.Array, *, shape: tuple[int, ...], window: Window, dtype: Dtype
) -> jax.Array:
    """The gradient (h, w, C, O) of a kernel: the input convolved with the gradient of the output, the batch summed
    over.
    """
    sides = []
    for axis in (0, 1):
        before, reach = window.padding[axis][0], (of_y.shape[axis + 1] - 1) * window.strides[axis]
        sides.append((before, shape[axis] - x.shape[axis + 1] - before + reach))  # as many places as the kernel has
    numbers = jax.lax.ConvDimensionNumbers(lhs_spec=(3, 0, 1, 2), rhs_spec=(3, 0, 1, 2), out_spec=(2, 3, 0, 1))
    return jax.lax.conv_general_dilated(
        x, of_y, (1, 1), sides, rhs_dilation=window.strides, dimension_numbers=numbers, preferred_element_type=dtype
    )


@jax.custom_vjp
def add_bias(y: Float[Array, "*B C"], bias: Float[Array, "C"]) -> Float[Array, "*B C"]:
    """Y (..., C) + bias (C), in the dtype of y; the bias' gradient is summed and given in its own."""
    return y + bias.astype(y.dtype)


def _add_bias_forward(y: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return add_bias(y, bias), _of_dtype(bias)


def _add_bias_backward(like: jax.Array, of_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return of_y, jnp.sum(of_y, tuple(range(of_y.ndim - 1)), dtype=like.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def _of_dtype(like: jax.Array) -> jax.Array:
    """An empty array that remembers a dtype for the backward pass."""
    return jnp.zeros((0,), like.dtype)


def merged_rows(leading: Sequence[int]) -> tuple[int, tuple[str, ...]]:
    """The size of the leading axes of a video (B, T) or batch (B) when they are merged, and their logical names."""
    return prod(leading), ("batch", "frames")[: len(leading)]
