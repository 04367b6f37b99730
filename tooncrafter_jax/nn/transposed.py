"""The transposed convolution that doubles a picture's sides."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from tooncrafter_jax.nn.layers import uniform_fan_in
from tooncrafter_jax.typing import Dtype

KERNEL_SIZE = 4
"""At stride 2 with a padding of 1."""


class UpConv(nnx.ConvTranspose):
    """A transposed convolution that doubles height and width.

    The kernel (4, 4, in, out) is correlated with the input spread out by zeros: against the kernel of PyTorch's
    transposed convolution it is flipped in both spatial axes. Initialised as PyTorch's, whose fan-in counts the output
    channels.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        init = uniform_fan_in(out_features * KERNEL_SIZE**2)
        pad = (KERNEL_SIZE - 2, KERNEL_SIZE - 2)  # what a padding of 1 leaves of the full correlation
        super().__init__(
            in_features,
            out_features,
            (KERNEL_SIZE, KERNEL_SIZE),
            strides=(2, 2),
            padding=(pad, pad),
            kernel_init=init,
            bias_init=init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
