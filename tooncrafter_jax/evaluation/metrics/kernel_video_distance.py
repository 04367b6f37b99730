"""KVD, the kernel video distance: the squared maximum mean discrepancy of I3D logits (spec section 10; Binkowski et al.
2018).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tooncrafter_jax.evaluation.metrics.i3d_features import VideoDistance
from tooncrafter_jax.typing import HostArray

DEGREE, GAMMA, OFFSET = 3, 1 / 400, 1.0
"""Of the kernel (gamma x·y + offset)^degree; gamma is one over the number of logits (spec section 10)."""


class KernelVideoDistance(VideoDistance):
    """The unbiased estimate of the squared discrepancy between the logits of what was made and of the truth.

    Unbiased, so that its size does not depend on the number of clips and it may fall below 0 where there is no
    difference. As each clip was made from one of the true ones, a clip is never compared with its own truth; what
    equals the truth has exactly 0.
    """

    name = "kvd"
    title = "KVD"
    bootstrap_draws = 500

    def distance(self, made: Float[np.ndarray, "N D"], truth: Float[np.ndarray, "N D"]) -> float:
        """See `VideoDistance.distance`."""
        return kernel_distance(made, truth, paired=True)


def kernel_distance(
    first: Float[np.ndarray, "N D"], second: Float[np.ndarray, "M D"], *, paired: bool = False
) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel k(x, y) = (x·y / 400 + 1)³, in float64:

        mean of k(x_i, x_j) over i != j  +  mean of k(y_i, y_j) over i != j  -  2 mean of k(x_i, y_j)

    Args:
      first: (N, D) features.
      second: (M, D) features; M may differ from N.
      paired: whether row i of one set depends on row i of the other. The last mean is then over i != j too, without
        which the estimate would be too low (Gretton et al. 2012, "A kernel two-sample test", section 2.2).

    Returns:
      The estimate, whose expectation is 0 for sets from one distribution; nan if N or M is less than 2.

    Raises:
      ValueError: sets of different sizes are said to be paired.
    """
    if paired and len(first) != len(second):
        raise ValueError(f"sets of {len(first)} and {len(second)} rows cannot be paired")
    if min(len(first), len(second)) < 2:
        return float("nan")
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    between = _kernel(x, y)
    across = _mean_of_pairs(between) if paired else between.mean()
    return float(_mean_of_pairs(_kernel(x, x)) + _mean_of_pairs(_kernel(y, y)) - 2 * across)


def _kernel(x: np.ndarray, y: np.ndarray) -> HostArray:
    return (GAMMA * (x @ y.T) + OFFSET) ** DEGREE


def _mean_of_pairs(kernel: np.ndarray) -> float:
    count = len(kernel)
    return (kernel.sum() - kernel.trace()) / (count * (count - 1))
