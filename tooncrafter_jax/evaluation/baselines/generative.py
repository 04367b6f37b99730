"""The model itself behind the rivals' protocol, so that all are measured by the same run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.evaluation.baselines.in_betweener import ClipRequest, end_frames
from tooncrafter_jax.requests import Pair, SamplingOptions


@runtime_checkable
class InterpolatesPairs(Protocol):
    """What is needed of `pipeline.ToonCrafter`."""

    def interpolate_pairs(self, pairs: Sequence[Pair], options: SamplingOptions) -> np.ndarray:
        """See `ToonCrafter.interpolate_pairs`."""
        ...


class Generative:
    """A `ToonCrafter` that draws the requests with their prompts, seeds and frame rates, at their own size and length.

    Frames 0 and T-1 are what the model makes of the end frames, not the pictures themselves. A clip's noise depends on its seed
    alone.

    Args:
      model: a loaded model.
      options: how to sample; size and length are those of the requests.
      name: the column in reports.
      title: the same in words; the name without.
    """

    def __init__(
        self,
        model: InterpolatesPairs,
        options: SamplingOptions | None = None,
        *,
        name: str = "tooncrafter",
        title: str | None = None,
    ) -> None:
        self._model, self._options = model, options or SamplingOptions()
        self.name, self.title = name, title or name

    def require(self, ids: Sequence[str]) -> None:
        """Nothing is needed: the model is loaded."""

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """The clips; see `InBetweener`.

        Raises:
          UserError: also if the model cannot draw this size or length.
        """
        first, _, frames = end_frames(requests)
        height, width = first.shape[1:3]
        options = dataclasses.replace(self._options, frames=frames, height=height, width=width)
        pairs = [Pair(r.first, r.last, r.prompt, seed=r.seed, fps=r.fps) for r in requests]
        return self._model.interpolate_pairs(pairs, options)

    def settings(self) -> Mapping[str, Any]:
        """The sampling options, without size and length."""
        options = dataclasses.asdict(self._options)
        return {name: value for name, value in options.items() if name not in ("frames", "height", "width")}
