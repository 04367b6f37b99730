"""What every metric is: rows that are measured clip by clip, and a number that is made of all rows.

Rows are small and belong to one clip each, so that a set larger than memory streams through, a run that was stopped
goes on, the clips are shared between processes in any way, and intervals come from drawing clips again without
measuring any twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

Rows = Mapping[str, Shaped[np.ndarray, "clips ..."]]
"""Name -> what is kept of each clip, along the first axis: distances by frame (clips, T), features (clips, D)."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips that are measured together.

    Attributes:
      videos: what was made, RGB.
      truth: the true clips of the same keys.
      prompts: a text for each clip; may be empty.
    """

    videos: UInt8[np.ndarray, "B T H W 3"]
    truth: UInt8[np.ndarray, "B T H W 3"]
    prompts: tuple[str, ...]


@runtime_checkable
class Metric(Protocol):
    """A metric. `name` is also that of its file, its column in reports and its value on the command line.

    Attributes:
      name: such as "fvd" or "lpips_alexnet".
      title: for reports, such as "LPIPS (AlexNet)".
      better: which direction is better.
    """

    name: str
    title: str
    better: Literal["lower", "higher"]

    def measure(self, batch: ClipBatch) -> Rows:
        """What is kept of each clip of a batch; on the device, compiled once for a batch shape."""
        ...

    def summarise(self, rows: Rows) -> float:
        """The number of a set, from the rows of its clips (of all of them, or of a bootstrap draw)."""
        ...

    def by_frame(self, rows: Rows) -> Shaped[np.ndarray, "T"] | None:
        """Mean by frame index, for plots such as the paper's Figure 8; None where the metric is not one of frames."""
        ...
