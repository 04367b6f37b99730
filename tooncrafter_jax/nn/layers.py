"""Linear and convolution layers: flax's, with the published initialisation and CPU forms.

Initialisation is uniform in plus or minus 1/sqrt(fan_in) for kernels and biases (the default of the published code), or
zero where a layer is built with `zero_init=True` (spec section 2.7).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from tooncrafter_jax.nn import cpu_convolution, cpu_gradients, products
from tooncrafter_jax.nn.cpu_gradients import use_cpu_gradients
from tooncrafter_jax.nn.cpu_loops import one_by_one
from tooncrafter_jax.nn.platform import current_platform, use_cpu_forms
from tooncrafter_jax.nn.products import Window
from tooncrafter_jax.nn.quantised import QuantisedKernel
from tooncrafter_jax.typing import AnyArray, Dtype, FloatArray, HostArray, PyTree


class HostKey:
    """What an initialiser may be given instead of a key: it notes down what is to be drawn on the host, leaf after
    leaf.

    In place of an array an initialiser then returns a `Drawn`, so that no network is ever whole in memory.

    Attributes:
      draws: in the order of drawing, what makes each array of a generator.
    """

    def __init__(self) -> None:
        self.draws: list[Callable[[np.random.Generator], HostArray]] = []

    def note(self, draw: Callable[[np.random.Generator], HostArray]) -> HostArray:
        """Notes a draw down, and returns what stands for its array."""
        self.draws.append(draw)
        return np.asarray(len(self.draws) - 1).view(Drawn)


Initialiser = Callable[..., AnyArray | HostArray]
"""(key or `HostKey`, shape, dtype) -> an array, or what stands for it."""


class Drawn(np.ndarray):
    """The number of a draw in `HostKey.draws`, in place of its array; nothing can be computed with it."""

    __array_ufunc__ = None  # pyright: ignore[reportAssignmentType]


def normal(std: float, mean: float = 0.0) -> Initialiser:
    """An initialiser that draws from a normal distribution."""

    def init(key: PRNGKeyArray | HostKey, shape: Sequence[int], dtype: Dtype = jnp.float32) -> AnyArray | HostArray:
        if isinstance(key, HostKey):
            return key.note(lambda draw: (mean + std * draw.standard_normal(tuple(shape), np.float32)).astype(dtype))
        return mean + std * jax.random.normal(key, tuple(shape), dtype)

    return init


def uniform_fan_in(fan_in: int) -> Initialiser:
    """An initialiser that draws uniformly from plus or minus 1/sqrt(fan_in)."""
    bound = float(fan_in) ** -0.5

    def init(key: PRNGKeyArray | HostKey, shape: Sequence[int], dtype: Dtype = jnp.float32) -> AnyArray | HostArray:
        if isinstance(key, HostKey):
            return key.note(lambda draw: draw.uniform(-bound, bound, tuple(shape)).astype(dtype))
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)

    return init


class _Initialisers(TypedDict):
    kernel_init: Initialiser
    bias_init: Initialiser


def _initialisers(fan_in: int, zero_init: bool) -> _Initialisers:
    init = nnx.initializers.zeros_init() if zero_init else uniform_fan_in(fan_in)
    return {"kernel_init": init, "bias_init": init}


def _dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: jax.lax.DotDimensionNumbers, **settings: Any
) -> jax.Array:
    """`lax.dot_general`; on the CPU bf16 operands accumulate in float32, which uses the CPU's bf16 units."""
    if use_cpu_forms() and lhs.dtype == jnp.bfloat16:
        settings["preferred_element_type"] = jnp.float32
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, **settings).astype(jnp.bfloat16)
    return jax.lax.dot_general(lhs, rhs, dimension_numbers, **settings)


def _conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **settings: Any,
) -> jax.Array:
    """`lax.conv_general_dilated`; on the CPU a bf16 3x3 convolution becomes matrix products, one per kernel row, and a
    float32 one of many channels has fewer products.
    """
    is_3x3 = rhs.shape[:2] == (3, 3) and rhs.ndim == 4 and tuple(window_strides) == (1, 1)
    is_same = not isinstance(padding, str) and [tuple(side) for side in padding] == [(1, 1), (1, 1)]  # flax gives lists
    if use_cpu_forms() and lhs.dtype == jnp.bfloat16 and is_3x3 and is_same and rhs.shape[2] >= 32:
        return _conv_3x3_as_row_products(lhs, rhs)
    if is_3x3 and is_same and cpu_convolution.suits(lhs, rhs):
        return cpu_convolution.same_3x3(lhs, rhs)
    return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **settings)


@jax.custom_vjp
def _conv_3x3_as_row_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A same-padded 3x3 convolution of (N H W C) with (3 3 C O): three row products in float32, image by image."""
    return one_by_one(lambda index: _image_as_row_products(x[index], kernel), len(x), x)


def _image_as_row_products(image: Float[Array, "H W C"], kernel: jax.Array) -> Float[Array, "H W O"]:
    height, width, channels = image.shape
    rows = kernel.reshape(3, 3 * channels, kernel.shape[-1])
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    columns = jnp.concatenate([padded[:, i : i + width] for i in range(3)], axis=-1)  # (H+2) W 3C
    total = sum(
        jax.lax.dot_general(
            columns[i : i + height], rows[i], (((2,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        for i in range(3)
    )
    return jnp.asarray(total).astype(image.dtype)


def _row_products_gradients(saved: tuple[jax.Array, jax.Array], of_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    def of_images(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.map(lambda image: _image_as_row_products(image, kernel), x)

    return jax.vjp(of_images, *saved)[1](of_y)


_conv_3x3_as_row_products.defvjp(
    lambda x, kernel: (_conv_3x3_as_row_products(x, kernel), (x, kernel)), _row_products_gradients
)


def _last_axis_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _two_axis_convolution(
    window: Window, x: jax.Array, kernel: jax.Array, precision: jax.lax.Precision | None = None
) -> jax.Array:
    return _conv_general_dilated(x, kernel, *window, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=precision)


def _kernel(stored: nnx.Param[Any], x: FloatArray) -> FloatArray:
    """What is multiplied with x: a stored kernel, in the dtype of x if it is quantised."""
    value = stored.get_value()
    return value.dequantised(x.dtype) if isinstance(value, QuantisedKernel) else value


class LayerOptions(TypedDict):
    """What every layer of a network is built with, handed on as `**kw`.

    Attributes:
      rngs: source of keys; only `rngs.params()` is called.
      dtype: of the computation, float32 by default; statistics of normalisations and softmax stay in float32.
      param_dtype: in which parameters are initialised, float32 by default.
    """

    rngs: nnx.Rngs
    dtype: NotRequired[Dtype]
    param_dtype: NotRequired[Dtype]


class Linear(nnx.Linear):
    """An affine map of the last axis; kernel (in, out)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        zero_init: bool = False,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
            **_initialisers(in_features, zero_init),
        )

    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Maps (... in) to (... out)."""
        if use_cpu_gradients(x, self.dtype):
            bias = None if self.bias is None else self.bias[...].astype(x.dtype)
            return cpu_gradients.linear(x, _kernel(self.kernel, x).astype(x.dtype), bias)
        x = x.astype(self.dtype)
        y = products.linear(_last_axis_product, x, _kernel(self.kernel, x))
        return y if self.bias is None else products.add_bias(y, self.bias[...])


class Conv(nnx.Conv):
    """A 2-D convolution of (... H W C), kernel (kh, kw, in, out); padding as in the published code (same, symmetric).

    With `full_products`, float32 operands keep at least 16 bits on accelerators too, whose default products keep 7 or
    10: on TPUs three products of bfloat16 make one. `kernel_init` draws the kernel otherwise than published.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | tuple[tuple[int, int], tuple[int, int]] | None = None,
        zero_init: bool = False,
        use_bias: bool = True,
        full_products: bool = False,
        kernel_init: Initialiser | None = None,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.full_products = full_products
        pad = kernel_size // 2 if padding is None else padding
        sides = ((pad, pad), (pad, pad)) if isinstance(pad, int) else pad
        self.window = Window((stride, stride), sides)
        initialisers = _initialisers(in_features * kernel_size**2, zero_init)
        if kernel_init is not None:
            initialisers["kernel_init"] = kernel_init
        super().__init__(
            in_features,
            out_features,
            (kernel_size, kernel_size),
            strides=stride,
            padding=sides,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
            **initialisers,
        )

    def __call__(self, x: Float[Array, "*B H W I"]) -> Float[Array, "*B h w O"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Maps (... H W in) to (... H' W' out)."""
        count, rows = products.merged_rows(x.shape[:-3])
        images = x.astype(self.dtype).reshape(count, *x.shape[-3:])
        kernel = _kernel(self.kernel, images)
        precision = None
        if self.full_products:
            precision = jax.lax.Precision.HIGH if current_platform() == "tpu" else jax.lax.Precision.HIGHEST
        product = functools.partial(_two_axis_convolution, self.window, precision=precision)
        if use_cpu_gradients(x, self.dtype):
            kernel = kernel.astype(x.dtype)
        y = products.convolution(product, images, kernel, self.window, rows)
        if self.bias is not None:
            add = cpu_gradients.add_bias if use_cpu_gradients(x, self.dtype) else products.add_bias
            y = add(y, self.bias[...])
        return y.reshape(*x.shape[:-3], *y.shape[1:])


class TemporalConv(nnx.Module):
    """A convolution over time alone, kernel (3, 1, 1, in, out), zero padding of one frame at both ends.

    Run as a 2-D (3, 1) convolution over [T, H·W], which is faster than a 3-D one on the CPU and on TPUs.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        zero_init: bool = False,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        shape = (3, 1, 1, in_features, out_features)
        init = _initialisers(prod(shape[:-1]), zero_init)
        self.kernel = nnx.Param(init["kernel_init"](rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(init["bias_init"](rngs.params(), (out_features,), param_dtype))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W O"]:
        """Maps (B T H W C) to (B T H W out)."""
        batch, frames, height, width, channels = x.shape
        rows = x.astype(self.dtype).reshape(batch, frames, height * width, channels)
        kernel, bias = _kernel(self.kernel, rows)[:, :, 0], self.bias[...]
        if use_cpu_gradients(x, self.dtype):
            kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        window = Window((1, 1), ((1, 1), (0, 0)))
        product = functools.partial(_two_axis_convolution, window)
        y = products.convolution(product, rows, kernel, window, "batch")
        y = (cpu_gradients.add_bias if use_cpu_gradients(x, self.dtype) else products.add_bias)(y, bias)
        return y.reshape(batch, frames, height, width, y.shape[-1])


class LayerNorm(nnx.LayerNorm):
    """Layer normalisation of the last axis with eps 1e-5, statistics in float32 by the exact formula."""

    def __init__(
        self, features: int, *, rngs: nnx.Rngs, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32
    ) -> None:
        super().__init__(
            features, epsilon=1e-5, use_fast_variance=False, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalises the last axis of (... C)."""
        assert self.scale is not None and self.bias is not None  # no norm here is built without them
        scale, bias = self.scale[...].astype(jnp.float32), self.bias[...].astype(jnp.float32)
        if use_cpu_gradients(x, self.dtype):
            rows = x.reshape(-1, x.shape[-1])
            return jnp.reshape(cpu_gradients.layer_norm(rows, scale, bias, self.epsilon), x.shape)
        values = x.astype(jnp.float32)
        centred = values - jnp.mean(values, -1, keepdims=True)
        inverse_std = jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + self.epsilon)
        return (centred * (inverse_std * scale) + bias).astype(self.dtype)


NORM_GROUPS = 32
"""Groups of every group normalisation of the published model (spec section 12)."""
Statistics = Float[Array, "*R C"]
"""Of every group, repeated for its channels, with axes of length 1 where they are shared."""


class GroupNorm(nnx.Module):
    """Group normalisation over the last axis.

    Args:
      features: channels, a multiple of the groups.
      groups: narrow networks want fewer than the published 32: with one channel a group, every channel's mean would be
        lost.
      epsilon: 1e-5 in res-blocks and temporal convolutions, 1e-6 in transformers and the autoencoder (spec section 12).

    Attributes:
      elsewhere: gives `moments` in place of the layer, where `x` is but a part of what they are taken over.
    """

    elsewhere: Callable[[GroupNorm, AnyArray, int], tuple[Statistics, Statistics]] | None = None

    def __init__(
        self,
        features: int,
        groups: int = NORM_GROUPS,
        *,
        epsilon: float,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.groups = groups
        if features % self.groups:
            raise ValueError(f"group normalisation needs a multiple of {self.groups} channels, not {features}")
        self.scale = nnx.Param(nnx.initializers.ones_init()(rngs.params(), (features,), param_dtype))
        self.bias = nnx.Param(nnx.initializers.zeros_init()(rngs.params(), (features,), param_dtype))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*S C"], *, batch_axes: int = 1) -> Float[Array, "*S C"]:
        """Normalises `x` (..., C); statistics are taken over every axis but the first `batch_axes` and the groups.

        A video (B T H W C) is normalised jointly over time with `batch_axes=1` and frame by frame with `batch_axes=2`.
        Statistics are in float32: per-channel sums first, then groups, with the two-pass variance.
        """
        if self.elsewhere is None and use_cpu_gradients(x, self.dtype):
            rows = x.reshape(prod(x.shape[:batch_axes]), -1, x.shape[-1])
            scale, bias = (part[...].astype(x.dtype) for part in (self.scale, self.bias))
            return jnp.reshape(cpu_gradients.group_norm(rows, scale, bias, self.groups, self.epsilon), x.shape)
        return self.apply(x, *self.statistics(x, batch_axes=batch_axes))

    def statistics(self, x: Float[Array, "*S C"], *, batch_axes: int = 1) -> tuple[Statistics, Statistics]:
        """Mean and 1/std of each group in float32, repeated for its channels, with axes of length 1 where reduced."""
        if self.elsewhere is None:
            mean, variance = self.moments(x, batch_axes=batch_axes)
        else:
            mean, variance = self.elsewhere(self, x, batch_axes)
        return mean, jax.lax.rsqrt(variance + self.epsilon)

    def moments(self, x: Float[Array, "*S C"], *, batch_axes: int = 1) -> tuple[Statistics, Statistics]:
        """Mean and variance of each group, as `statistics`."""
        axes = tuple(range(batch_axes, x.ndim - 1))
        values = x.astype(jnp.float32)
        mean = self._per_group(jnp.mean(values, axes, keepdims=True))
        return mean, self._per_group(jnp.mean(jnp.square(values - mean), axes, keepdims=True))

    def apply(self, x: Float[Array, "*S C"], mean: Statistics, inverse_std: Statistics) -> Float[Array, "*S C"]:
        """Normalises `x` with given statistics, so that parts of a clip can be normalised like the whole."""
        factor = inverse_std * self.scale[...].astype(jnp.float32)
        return ((x.astype(jnp.float32) - mean) * factor + self.bias[...].astype(jnp.float32)).astype(self.dtype)

    def _per_group(self, channel_means: jax.Array) -> jax.Array:
        """The mean of each group, repeated for its channels."""
        shape = channel_means.shape
        grouped = channel_means.reshape(*shape[:-1], self.groups, shape[-1] // self.groups)
        return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(shape)


def silu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """x·sigmoid(x)."""
    return jax.nn.silu(x)


def gelu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The exact (erf) GELU, the only kind in this model (spec section 12)."""
    return jax.nn.gelu(x, approximate=False)


def upsample_nearest(x: Float[Array, "*B H W C"]) -> Float[Array, "*B 2*H 2*W C"]:
    """Doubles the height and width of (... H W C) by repetition."""
    *batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[..., :, None, :, None, :], (*batch, height, 2, width, 2, channels))
    return x.reshape(*batch, 2 * height, 2 * width, channels)


def count_parameters(tree: PyTree) -> int:
    """How many numbers a tree of arrays, shapes or variables holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
