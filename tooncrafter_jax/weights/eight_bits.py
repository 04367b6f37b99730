"""Which weights of a model are held in 8 bits while it draws, and what they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn.quantised import QuantisedKernel, quantised
from tooncrafter_jax.typing import AllParams, Dtype, HasShape, Params

WEIGHT_DTYPES = ("int8", "float8_e4m3fn")
"""What large weights can be held in."""
QUANTISED_COMPONENTS = ("unet", "clip_text", "clip_image", "sketch_encoder")
"""The large networks: 97 % of the published model. Those that make latents and pixels stay as they are."""
SMALLEST_KERNEL = 4096
"""Numbers of the smallest kernel that is quantised: 64 channels to 64."""
UNTOUCHED = ("conv_in", "conv_out", "patch_embedding", "hint", "time_embedding", "fps_embedding")
"""First and last layers, and those that embed: as they begin the path."""


def checked_weight_dtype(dtype: Dtype | None) -> Dtype | None:
    """The numpy dtype, if it is one of `WEIGHT_DTYPES`; None stays.

    Raises:
      UserError: it is none of them.
    """
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in WEIGHT_DTYPES:
        raise UserError(f"weights are not held in {dtype!r}: choose one of {', '.join(WEIGHT_DTYPES)}")
    return found


def is_quantised(component: str, path: str, shape: Sequence[int]) -> bool:
    """Whether a parameter is held in 8 bits where that is asked for.

    These are the kernels of `QUANTISED_COMPONENTS` with at least `SMALLEST_KERNEL` numbers, but for first and last
    layers and all that embeds times (`UNTOUCHED`, and each block's projection of the time). Norms, biases and
    tables of embeddings are no kernels.

    Args:
      component: of the model.
      path: of the parameter within it.
      shape: of the parameter.
    """
    return (
        component in QUANTISED_COMPONENTS
        and path.endswith(".kernel")
        and path.split(".")[0] not in UNTOUCHED
        and not path.endswith(".embedding.kernel")
        and prod(shape) >= SMALLEST_KERNEL
    )


def in_eight_bits(params: AllParams, dtype: Dtype) -> AllParams:
    """A model's parameters (component -> path -> array), their large kernels as `QuantisedKernel` on the host.

    All others, and kernels that are quantised already, are those that were given.
    """
    return _replaced(params, lambda kernel: quantised(np.asarray(kernel), dtype))


def abstract_in_eight_bits(params: AllParams, dtype: Dtype) -> AllParams:
    """`in_eight_bits` of shapes: nothing is computed."""

    def stand_in(leaf: HasShape) -> QuantisedKernel:
        scale = jax.ShapeDtypeStruct(leaf.shape[-1:], jnp.float32)
        values: Any = jax.ShapeDtypeStruct(leaf.shape, dtype)
        return QuantisedKernel(values, scale)  # pyright: ignore[reportArgumentType]

    return _replaced(params, stand_in)


def _replaced(params: AllParams, quantise: Callable[[Any], QuantisedKernel]) -> AllParams:
    def held(component: str, path: str, value: Any) -> Any:
        if isinstance(value, QuantisedKernel) or not is_quantised(component, path, value.shape):
            return value
        return quantise(value)

    return {name: {path: held(name, path, value) for path, value in own.items()} for name, own in params.items()}


def bytes_of(params: Params) -> int:
    """What the parameters of a component take."""
    return sum(prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(params))
