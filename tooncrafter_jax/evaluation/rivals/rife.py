"""The learned rival that needs no prompt: RIFE version 4, at any time between two pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest, end_frames, times
from tooncrafter_jax.typing import AnyArray, JsonObject, Params
from tooncrafter_jax.zoo.metric_weights import RIFE_PACKAGE, LoadedNetwork, load_rife

PIXEL_MULTIPLE = 128
"""Pictures are padded with black at the right and below to multiples of this many pixels, as by the package's own
command.
"""


class Rife:
    """RIFE (Huang et al., ECCV 2022) with the published weights of version 4; see `models.rife`.

    Each frame is drawn from the two pictures at its own time, t = i / (T - 1), not by halving again and again. Clips
    are drawn one by one, so that memory does not grow with the batch. Frames 0 and T-1 are the pictures themselves.

    Args:
      weights: the directory that `fetch-metric-weights` wrote to; the default one without.
    """

    name, title = "rife", "RIFE"

    def __init__(self, weights: Path | None = None) -> None:
        self._weights = weights

    @cached_property
    def _loaded(self) -> LoadedNetwork:
        return load_rife(self._weights)

    @cached_property
    def _compiled(self) -> Callable[..., AnyArray]:
        network = self._loaded.network

        def draw(
            params: Params, first: UInt8[Array, "H W 3"], last: UInt8[Array, "H W 3"], when: Float[Array, "T"]
        ) -> UInt8[Array, "T H W 3"]:
            height, width = first.shape[:2]
            border = ((0, -height % PIXEL_MULTIPLE), (0, -width % PIXEL_MULTIPLE), (0, 0))
            ends = [
                jnp.broadcast_to(padded, (len(when), *padded.shape)) * 2 - 1
                for padded in (jnp.pad(picture.astype(jnp.float32) / 255, border) for picture in (first, last))
            ]
            with jax.default_matmul_precision("highest"):
                pictures = network.bind(params)(*ends, when)[:, :height, :width]
            return jnp.clip(jnp.floor((pictures + 1) * 127.5 + 0.5), 0, 255).astype(jnp.uint8)

        return jax.jit(draw)

    def require(self, ids: Sequence[str]) -> None:
        """Loads the weights.

        Raises:
          UserError: if they are not there; names the command that fetches them.
        """
        _ = self._loaded

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """The clips; see `InBetweener`."""
        first, last, frames = end_frames(requests)
        videos = np.stack([first, *[last] * (frames - 1)], axis=1)
        when = np.asarray(times(frames)[1:-1], np.float32)
        if len(when):
            for video, begin, end in zip(videos, first, last, strict=True):
                video[1:-1] = self._compiled(self._loaded.params, begin, end, when)
        return videos

    def settings(self) -> JsonObject:
        """The version of the weights."""
        return {"weights": str(RIFE_PACKAGE)}
