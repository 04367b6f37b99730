"""What metrics of single frames share: one row of numbers by frame a clip, and their mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Shaped

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch, Rows


class FrameMetric(ABC):
    """A number for each frame of each clip, kept in a row of the metric's own name; nan where it does not apply.

    The number of a set is the mean of all frames of all clips but those without one, and nan if there are none.
    """

    name: str
    title: str
    better: Literal["lower", "higher"]
    first_frame: ClassVar[int] = 0
    """Index of the frame that the first entry of a row belongs to."""
    least_side: int = 1
    """Pixels of a frame's shorter side that can be measured."""

    @abstractmethod
    def of_frames(self, batch: ClipBatch) -> Float[np.ndarray, "B frames"]:
        """The numbers of each clip's frames."""

    def measure(self, batch: ClipBatch) -> Rows:
        """The row (B, frames), float32.

        Raises:
          UserError: the frames are smaller than `least_side`.
        """
        height, width = batch.videos.shape[2:4]
        if min(height, width) < self.least_side:
            raise UserError(
                f"{self.title} needs frames of at least {self.least_side}x{self.least_side} pixels, not "
                f"{height}x{width}: leave it out or evaluate larger clips"
            )
        return {self.name: np.asarray(self.of_frames(batch), np.float32)}

    def summarise(self, rows: Rows) -> float:
        """The mean, in float64."""
        return float(mean_of_present(np.asarray(rows[self.name]).reshape(-1)))

    def by_frame(self, rows: Rows) -> Shaped[np.ndarray, "T"] | None:
        """The means by frame index: (T,), nan for the frames before `first_frame` and where no clip has a number."""
        means = mean_of_present(np.asarray(rows[self.name]))
        return np.concatenate([np.full(self.first_frame, np.nan), means])


def mean_of_present(values: Shaped[np.ndarray, "clips *rest"]) -> Float[np.ndarray, "*rest"]:
    """The float64 mean along the first axis of what is not nan; nan where all is."""
    present = ~np.isnan(values)
    count = present.sum(0)
    total = np.where(present, values, 0).sum(0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
