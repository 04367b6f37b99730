"""LPIPS of each frame against the true one (Zhang et al. 2018; spec sections 8.6 and 10)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from tooncrafter_jax.evaluation.metrics.devices import OverLocalDevices
from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.typing import Params
from tooncrafter_jax.zoo.lpips.network import LpipsNet
from tooncrafter_jax.zoo.metric_weights import LoadedNetwork, load_lpips

TITLES: dict[LpipsNet, str] = {"alexnet": "LPIPS (AlexNet)", "vgg16": "LPIPS (VGG16)"}
SMALLEST: dict[LpipsNet, int] = {"alexnet": 31, "vgg16": 16}
"""Pixels of a side that leave a cell at the last depth."""


class LpipsMetric(FrameMetric):
    """The distance of every frame at its own size, in float32 at full precision; the mean over frames and clips.

    A device measures a clip at a time, so that memory does not grow with the batch.

    Args:
      net: "alexnet", the usual one for evaluation, or "vgg16", which the decoder is trained with.
      network: it with its weights, from `load_lpips`.
    """

    better: Literal["lower", "higher"] = "lower"

    def __init__(self, net: LpipsNet, network: LoadedNetwork) -> None:
        self.name, self.title = f"lpips_{net}", TITLES[net]
        self.least_side = SMALLEST[net]
        bind = network.network.bind

        def step(
            params: Params, videos: UInt8[Array, "B T H W 3"], truth: UInt8[Array, "B T H W 3"]
        ) -> Float[Array, "B T"]:
            measure = bind(params)

            def of_clip(pair: tuple[UInt8[Array, "T H W 3"], UInt8[Array, "T H W 3"]]) -> Float[Array, "T"]:
                first, second = (frames.astype(jnp.float32) / 127.5 - 1 for frames in pair)
                return measure(first, second)

            return jax.lax.map(of_clip, (videos, truth))

        self._measure = OverLocalDevices(step, network.params)

    @classmethod
    def load(cls, net: LpipsNet, weights: Path | None = None) -> LpipsMetric:
        """With the published weights.

        Args:
          net: "alexnet" or "vgg16".
          weights: the directory that `fetch_metric_weights` wrote to; by default its own default.

        Raises:
          UserError: the weights are not there or are damaged.
        """
        return cls(net, load_lpips(net, weights))

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The distance of each frame, at least 0."""
        return self._measure(batch.videos, batch.truth)
