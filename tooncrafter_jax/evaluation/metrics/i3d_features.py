"""The I3D logits that the Fréchet and the kernel video distance compare (spec section 10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.devices import OverLocalDevices
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch, Rows
from tooncrafter_jax.evaluation.metrics.shared_features import SharedFeatures
from tooncrafter_jax.typing import Params, Video
from tooncrafter_jax.zoo.i3d.network import SHORTEST_CLIP
from tooncrafter_jax.zoo.metric_weights import LoadedNetwork, load_i3d

LOGITS, TRUE_LOGITS = "logits", "true_logits"
"""Names of the rows, which are the same for both distances."""
FEWEST_CLIPS = 256
"""Below this number the distances say little about the set that the clips were drawn from: a covariance of 400 logits
has 80,200 entries, and the Fréchet distance of few clips is far too large.
"""


def too_few_clips(clips: int) -> str:
    """What a report must say of a distance between so few clips; "" if they are enough."""
    if clips >= FEWEST_CLIPS:
        return ""
    return (
        f"measured on {clips} clips, fewer than {FEWEST_CLIPS}: it compares methods on these very clips at best, and "
        "not with numbers of other sets"
    )


class I3DLogits:
    """Clips of any size to the 400 logits of I3D, in float32 at full precision.

    Args:
      network: I3D with its weights, from `load_i3d`.
    """

    def __init__(self, network: LoadedNetwork) -> None:
        bind, size = network.network.bind, network.network.config.image_size

        def step(params: Params, clips: UInt8[Array, "B T H W 3"]) -> Float[Array, "B classes"]:
            return bind(params)(resized(clips.astype(jnp.float32) / 127.5 - 1, size))

        self._measure = OverLocalDevices(step, network.params)

    def __call__(self, clips: UInt8[np.ndarray, "B T H W 3"]) -> Float32[np.ndarray, "B classes"]:
        """The logits of each clip.

        Raises:
          UserError: the clips have fewer than 9 frames.
        """
        if clips.shape[1] < SHORTEST_CLIP:
            raise UserError(
                f"FVD and KVD need clips of at least {SHORTEST_CLIP} frames, not {clips.shape[1]}: leave these metrics "
                "out or evaluate longer clips"
            )
        return self._measure(clips)


class I3DFeatures:
    """The rows of both distances; give one object to both and the network runs once.

    Args:
      extract: what gives the logits, usually `I3DLogits`.
    """

    def __init__(self, extract: Callable[[UInt8[np.ndarray, "B T H W 3"]], Float32[np.ndarray, "B D"]]) -> None:
        self._features = SharedFeatures(extract)

    @classmethod
    def load(cls, weights: Path | None = None) -> I3DFeatures:
        """With the published weights.

        Args:
          weights: the directory that `fetch_metric_weights` wrote to; by default its own default.

        Raises:
          UserError: the weights are not there or are damaged.
        """
        return cls(I3DLogits(load_i3d(weights)))

    def rows(self, batch: ClipBatch) -> Rows:
        """The logits of what was made and of the truth, (B, 400) each.

        Raises:
          UserError: the clips are too short.
        """
        return {LOGITS: self._features.of_videos(batch), TRUE_LOGITS: self._features.of_truth(batch)}


class VideoDistance:
    """A distance between the logits of what was made and of the truth.

    Args:
      features: I3D; one object may serve several distances.
    """

    better: Literal["lower", "higher"] = "lower"

    def __init__(self, features: I3DFeatures) -> None:
        self._features = features

    def measure(self, batch: ClipBatch) -> Rows:
        """Rows "logits" and "true_logits", (B, 400) each.

        Raises:
          UserError: the clips have fewer than 9 frames.
        """
        return self._features.rows(batch)

    def summarise(self, rows: Rows) -> float:
        """The distance; nan for fewer than two clips."""
        return self.distance(rows[LOGITS], rows[TRUE_LOGITS])

    def distance(self, made: Float[np.ndarray, "N D"], truth: Float[np.ndarray, "N D"]) -> float:
        """Between the logits of clips and of what they should be."""
        raise NotImplementedError

    def by_frame(self, rows: Rows) -> Shaped[np.ndarray, "T"] | None:
        """None: a clip has one row of logits."""
        return None


def resized(videos: Video, size: int) -> Float[Array, "B T {size} {size} 3"]:
    """Bilinear without antialiasing, edges at edges ("align corners" off), whatever the aspect (spec section 10)."""
    shape = (*videos.shape[:2], size, size, 3)
    return jax.image.resize(videos, shape, "bilinear", antialias=False, precision=jax.lax.Precision.HIGHEST)
