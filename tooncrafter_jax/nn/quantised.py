"""Kernels held in 8 bits, with a scale for each output channel: half of bfloat16's memory, a quarter of float32's.

The scheme is symmetric rounding per channel (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
inference: A whitepaper", arXiv:1806.08342, section 3): the largest magnitude of a channel becomes the largest number of
the 8-bit type. Activations are not rounded: a layer computes with the kernel that `dequantised` gives.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from tooncrafter_jax.typing import AnyArray, Dtype, HostArray


class QuantisedKernel(NamedTuple):
    """What stands for a kernel (..., O) among parameters; a tree of two arrays.

    Attributes:
      values: (..., O) int8 or float8_e4m3fn.
      scale: (O,) float32; the kernel is about values * scale.
    """

    values: AnyArray | HostArray
    scale: AnyArray | HostArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return self.values.shape

    def dequantised(self, dtype: Dtype) -> AnyArray:
        """The kernel (..., O) in this dtype, rounded once, from float32.

        It is to be made where it is used: compilers for TPUs and GPUs then make it there for each use, inside a loop
        too, and not for all layers at once.
        """
        return (jnp.asarray(self.values).astype(jnp.float32) * self.scale).astype(dtype)


def quantised(kernel: HostArray, dtype: Dtype) -> QuantisedKernel:
    """The nearest kernel of 8-bit numbers, on the host.

    Args:
      kernel: (..., O) of finite floats, output channels last.
      dtype: int8, or a float of 8 bits.
    """
    dtype, wide = np.dtype(dtype), np.asarray(kernel, np.float32)
    is_integer = np.issubdtype(dtype, np.integer)
    largest = np.float32(np.iinfo(dtype).max if is_integer else ml_dtypes.finfo(dtype).max)
    reach = np.max(np.abs(wide), axis=tuple(range(wide.ndim - 1)))
    scale = np.where(reach > 0, reach / largest, np.float32(1)).astype(np.float32)
    values = np.clip(wide / scale, -largest, largest)  # the quotient of the largest may be rounded up
    return QuantisedKernel((np.rint(values) if is_integer else values).astype(dtype), scale)
