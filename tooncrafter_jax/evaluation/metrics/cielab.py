"""Colours as the eye sees their differences: CIE 1976 L*a*b*."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from tooncrafter_jax.io.cielab import TO_XYZ, WHITE


def lab(images: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"]) -> Float[Array, "*B H W 3"]:
    """From sRGB (IEC 61966-2-1) to L* in [0, 100] and a*, b* of about [-100, 100], in float32."""
    coded = images.astype(jnp.float32) / 255
    linear = jnp.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)
    # written out: an accelerator would shorten the numbers of a matrix product
    ratios = [sum(linear[..., i] * row[i] for i in range(3)) / white for row, white in zip(TO_XYZ, WHITE, strict=True)]
    x, y, z = (jnp.where(ratio > 216 / 24389, jnp.cbrt(ratio), (24389 / 27 * ratio + 16) / 116) for ratio in ratios)
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@jax.jit
def mean_lab(
    videos: UInt8[Array, "B T H W 3"] | UInt8[np.ndarray, "B T H W 3"],
) -> Float[Array, "B T 3"]:
    """The mean L*, a* and b* over the pixels of each frame."""
    return jax.lax.map(lambda frames: lab(frames).mean((1, 2)), videos)
