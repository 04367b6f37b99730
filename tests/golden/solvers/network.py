"""What stands for a network where solvers are compared: a smooth function of latents and time, and fixed noise."""

from __future__ import annotations

from typing import Any

import numpy as np

SHAPE = (1, 2, 2, 2, 2)
MAX_STEPS = 20


def v(x: Any, time: Any, numpy: Any = np) -> Any:
    """A bounded prediction of v plus a small linear part, by numpy or by what has its names."""
    share = time / 1000
    return numpy.sin(1.3 * x + 2.0 * share) * (0.4 + 0.5 * share) - 0.3 * (1.0 - share) * x


def noise() -> tuple[np.ndarray, np.ndarray]:
    """What a run starts from, and what is added in each of its steps, float32."""
    drawn = np.random.default_rng(5).normal(size=(MAX_STEPS + 1, *SHAPE)).astype(np.float32)
    return drawn[0], drawn[1:]
