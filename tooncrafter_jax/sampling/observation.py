"""What a caller sees of a sampling run while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Progress(NamedTuple):
    """Where a run stands.

    Attributes:
      done, total: predictions of the denoiser; one a step with most solvers.
      preview: decodes what the model expects the clips to become, uint8 (B, T, H, W, 3); costs one decoding. On several
        hosts all processes must call it, or none.
    """

    done: int
    total: int
    preview: Callable[[], np.ndarray]
