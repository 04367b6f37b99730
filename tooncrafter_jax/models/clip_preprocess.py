"""Pictures of any size to the pixels that the CLIP image tower reads (spec section 3.2).

The published model resizes with an anti-aliasing blur and a bicubic kernel, both separable and linear. So the resize is
two products with constant matrices, one for the rows and one for the columns, made with numpy while tracing.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tooncrafter_jax.typing import Images

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue in [0, 1] over CLIP's training pictures (spec section 3.2)."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Their standard deviation."""
BICUBIC_A = -0.75
"""The free parameter of the bicubic kernel (spec section 3.2)."""
MIN_SIGMA = 0.001
"""Smallest standard deviation of the blur in pixels: an axis that needs none is not changed (spec section 3.2)."""


def preprocess(images: Images, size: int = 224) -> Float[Array, "B {size} {size} 3"]:
    """Resizes to a square, without keeping the aspect and without clipping, and normalises the colours.

    Args:
      images: (B, H, W, 3) in [-1, 1], of any size.
      size: side of the result in pixels.

    Returns:
      (B, size, size, 3) in float32, with mean about 0 and standard deviation about 1.

    Raises:
      ValueError: if `images` does not have four axes of which the last has 3 entries.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"pictures must have the shape (B, H, W, 3), not {images.shape}")
    height, width = images.shape[1:3]
    antialias = max(height, width) > size
    rows, columns = resize_matrix(height, size, antialias), resize_matrix(width, size, antialias)
    x = images.astype(jnp.float32)
    # full precision: an accelerator would otherwise round the pixels to 8 or 11 bits
    x = jnp.einsum("iH,BHWC->BiWC", rows, x, precision=jax.lax.Precision.HIGHEST)
    x = jnp.einsum("jW,BiWC->BijC", columns, x, precision=jax.lax.Precision.HIGHEST)
    return ((x + 1.0) / 2.0 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)


@lru_cache(maxsize=64)
def resize_matrix(source: int, target: int, antialias: bool) -> Float[np.ndarray, "target source"]:
    """The (target, source) float32 matrix that resizes one axis; its rows sum to 1.

    Four bicubic taps at positions where the first and last pixels of both sides coincide ("align corners"); each tap
    reads the blurred axis.

    Args:
      source: pixels of the axis.
      target: pixels after resizing.
      antialias: whether to blur first, as the published code does on both axes if either shrinks (spec section 13).
    """
    kernel = _blur_kernel(source / target) if antialias else np.ones(1)
    # float32 positions, as in the published code; exact ones would move a pixel by up to 4e-5 standard deviations
    step = np.float32(source - 1) / np.float32(max(target - 1, 1))
    position = np.arange(target, dtype=np.float32) * step
    base = np.floor(position)
    weights = _bicubic_weights((position - base).astype(np.float64))
    matrix = np.zeros((target, source))
    output = np.arange(target)
    for tap in range(4):
        centre = np.clip(base.astype(np.int64) + tap - 1, 0, source - 1)
        for i, blur in enumerate(kernel):
            pixel = _reflect(centre + i - len(kernel) // 2, source)
            np.add.at(matrix, (output, pixel), weights[tap] * blur)
    matrix = matrix.astype(np.float32)
    matrix.flags.writeable = False  # the cache hands the same array to everybody
    return matrix


def _blur_kernel(factor: float) -> np.ndarray:
    """The Gaussian that is applied before shrinking by `factor`: odd length, sum 1."""
    sigma = max((factor - 1.0) / 2.0, MIN_SIGMA)
    length = int(max(4.0 * sigma, 3.0)) | 1
    kernel = np.exp(-0.5 * ((np.arange(length) - length // 2) / sigma) ** 2)
    return kernel / kernel.sum()


def _bicubic_weights(fraction: np.ndarray) -> np.ndarray:
    """(4, N) weights of the pixels at -1, 0, 1 and 2 for positions `fraction` in [0, 1) between pixels 0 and 1."""
    distance = np.abs(fraction - np.arange(-1.0, 3.0)[:, None])
    a = BICUBIC_A
    near = (a + 2.0) * distance**3 - (a + 3.0) * distance**2 + 1.0
    far = a * (distance**3 - 5.0 * distance**2 + 8.0 * distance - 4.0)
    return np.where(distance <= 1.0, near, far)


def _reflect(index: np.ndarray, length: int) -> np.ndarray:
    """Mirrors an index that is beyond an end of the axis at the first or last pixel, which is not repeated."""
    period = max(2 * (length - 1), 1)  # an axis of one pixel has nothing to mirror
    index = np.abs(index) % period
    return np.minimum(index, period - index)
