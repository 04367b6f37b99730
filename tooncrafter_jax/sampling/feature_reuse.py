"""Features of the denoiser that are computed in some steps alone: its deep layers change little from step to step.

Ma et al. (2024, "DeepCache", arXiv:2312.00858) compute a U-Net's deep half in every N-th step and the outermost blocks
in all of them. Which steps these are is known before a run, so that one program serves every pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.unet import UNetConfig


class Reuse(NamedTuple):
    """How features are reused.

    Attributes:
      every: of so many predictions, one computes the whole denoiser.
      blocks: outermost blocks on the way up that all of them compute.
    """

    every: int
    blocks: int = 1

    @classmethod
    def parse(cls, text: str, config: UNetConfig) -> Reuse:
        """Reads "EVERY" or "EVERY:BLOCKS".

        Raises:
          UserError: it is neither, or the denoiser has not so many blocks at full resolution.
        """
        most = config.most_reused_blocks
        try:
            every, blocks = (int(part) for part in (text if ":" in text else f"{text}:1").split(":"))
        except ValueError:
            every = blocks = 0
        if every < 2 or not 1 <= blocks <= most:
            raise UserError(
                "reuse must be a number of predictions from 2 on, such as 3, or that with the outermost blocks that "
                f"all of them compute, 3:1 to 3:{most}; not '{text}'"
            )
        return cls(every, blocks)

    def fresh(
        self, timesteps: Int[np.ndarray, "rows"], guided: tuple[np.ndarray, np.ndarray] | None = None
    ) -> Bool[np.ndarray, "rows"]:
        """Which predictions compute the whole denoiser.

        Args:
          timesteps: of the predictions, in their order.
          guided: the first and the last time with guidance; None: all have it. Where guidance begins, nothing is there
            to be reused.
        """
        is_guided = np.ones(len(timesteps), bool)
        if guided is not None:
            is_guided = (timesteps >= guided[0]) & (timesteps <= guided[1])
        fresh, since = np.zeros(len(timesteps), bool), 0
        for row in range(len(timesteps)):
            begins = is_guided[row] and (row == 0 or not is_guided[row - 1])
            fresh[row] = row == 0 or begins or since == self.every
            since = 1 if fresh[row] else since + 1
        return fresh
