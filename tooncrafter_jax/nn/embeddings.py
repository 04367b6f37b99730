"""Sinusoidal embeddings of times and frame rates."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MAX_PERIOD = 10_000.0
"""Longest period of the sinusoids (spec section 2.1)."""


def sinusoidal_embedding(values: Int[Array, "B"] | Float[Array, "B"], features: int) -> Float[Array, "B D"]:
    """[cos(v·f), sin(v·f)] with f_i = exp(-ln(10000)·i / (features/2)): the cosine half comes first (spec section 2.1).

    Args:
      values: times or frame rates.
      features: width of the result; an odd width ends in a zero column.
    """
    half = features // 2
    exponents = np.float32(-np.log(MAX_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half)
    # One ulp here is 6e-5 radians at time 1000. At the published width, 320, the power of two of a float32 exponent is
    # within 2.2e-5 of the published code's exponential; a correctly rounded one only within 8.4e-5.
    frequencies = np.exp2((exponents * np.float32(np.log2(np.e))).astype(np.float64)).astype(np.float32)
    angles = values.astype(jnp.float32)[:, None] * frequencies[None]
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, features % 2)))
