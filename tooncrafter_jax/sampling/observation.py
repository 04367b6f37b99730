"""What a caller sees of a sampling run while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Progress(NamedTuple):
    """Where a run stands.

    Attributes:
      done, total: predictions of the denoiser; one a step with most solvers.
      preview: decodes what the model expects the clips to become, uint8 (B, T, H, W, 3); costs one decoding. On several hosts
        all processes must call it, or none.
    """

    done: int
    total: int
    preview: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Replay:
    """A run with given random numbers whose results on the way are observed: how `verify` compares with stored runs.

    Attributes:
      posterior: (B, 2, h, w, C) noise of the latents of the first and the last picture.
      initial: (B, T, h, w, C) latents that sampling starts from.
      steps: (steps, B, T, h, w, C) noise of each step.
      observe: called with a name and an array: `timesteps` (steps,), `text` (B, 77, D), `image` (B, M, D), `condition_latents`
        (B, T, h, w, C); after each chunk of n steps `latents` (B, T, h, w, C) and `clean` (n, B, T, h, w, C); and of each
        group of clips decoded together `first_pass` and `second_pass` (B, T, H, W, 3).
      window: frames that the decoder gets at a time, by themselves, as in the published code (spec section 5.6).
    """

    posterior: np.ndarray
    initial: np.ndarray
    steps: np.ndarray
    observe: Callable[[str, Any], None]
    window: int | None = None
