"""Dropout with cheap masks that do not depend on how an activation is spread over devices.

Drawing a random number takes about 130 integer operations on an accelerator (threefry): a number for each element was 8
% of a training step. So four elements share the four bytes of one 32-bit number, and a probability is a multiple of
1/256: 34 operations an element. Which byte of which number an element gets follows from its place in the whole array,
so that the same key makes the same mask on any mesh.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

LEVELS = 256
"""Values of a byte."""
SHARERS = 4
"""Elements that share a random number."""


def kept_levels(rate: float) -> int:
    """How many of the 256 values of a byte keep an element: the share nearest to 1 - rate that is neither none nor
    all.
    """
    return min(max(round(LEVELS * (1.0 - rate)), 1), LEVELS - 1)


def dropout(x: Float[Array, "*S"], rate: float, key: PRNGKeyArray | None) -> Float[Array, "*S"]:
    """Sets elements to zero with probability `rate`, to the nearest 1/256, and scales the others so that the mean
    stays.

    Args:
      x: of any shape. Random numbers are shared along its height, width or channels (axes -3, -2, -1), never along the
        first axis unless it is the only one.
      rate: in [0, 1).
      key: of the mask; None for no dropout.

    Returns:
      `x` itself without a key or with a rate of 0; else an array like it.
    """
    if key is None or rate == 0.0:
        return x
    levels = kept_levels(rate)
    scale = (
        LEVELS / levels
    )  # by what is really kept; in float32, since a bfloat16 scale alone would be off by up to 0.4 %
    scaled = (x.astype(jnp.float32) * scale).astype(x.dtype)
    return jnp.where(_keep(key, x.shape, levels), scaled, jnp.zeros_like(x))


def _keep(key: jax.Array, shape: tuple[int, ...], levels: int) -> jax.Array:
    """A mask that is true with probability levels / 256."""
    axis = _shared_axis(shape)
    size = shape[axis]
    words = -(-size // SHARERS)
    drawn = jax.random.bits(key, (*shape[:axis], words, *shape[axis + 1 :]), jnp.uint32)
    # One byte after another is moved to the top, where a comparison does not mind the bytes below it.
    shifts = range(0, 32, 32 // SHARERS)
    parts = [(drawn << np.uint32(shift)) < np.uint32(levels << 24) for shift in shifts]
    return jax.lax.slice_in_dim(jnp.concatenate(parts, axis), 0, size, axis=axis)


def _shared_axis(shape: tuple[int, ...]) -> int:
    """The axis along which elements share numbers: the first of the last three, but for the batch, that four divide."""
    candidates = range(max(len(shape) - 3, min(1, len(shape) - 1)), len(shape))
    return next((axis for axis in candidates if shape[axis] % SHARERS == 0), candidates[-1])
