"""Metrics of generated clips, one file each; `metric.Metric` says what all of them have in common.

`make_metrics` builds them by name. Rows of equal names are equal, whichever metric measured them, so that a run may
keep the rows of all its metrics in one table.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tooncrafter_jax.curation.clip_model import ClipWeights
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.clip_similarity import ClipFeatures, ClipImageSimilarity, ClipTextSimilarity
from tooncrafter_jax.evaluation.metrics.colour_drift import ColourDrift
from tooncrafter_jax.evaluation.metrics.cpbd import Cpbd
from tooncrafter_jax.evaluation.metrics.flicker import Flicker
from tooncrafter_jax.evaluation.metrics.frechet_video_distance import FrechetVideoDistance
from tooncrafter_jax.evaluation.metrics.i3d_features import I3DFeatures
from tooncrafter_jax.evaluation.metrics.kernel_video_distance import KernelVideoDistance
from tooncrafter_jax.evaluation.metrics.key_frames import KeyFrames
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch, Metric, Rows
from tooncrafter_jax.evaluation.metrics.perceptual import LpipsMetric
from tooncrafter_jax.evaluation.metrics.psnr import Psnr
from tooncrafter_jax.evaluation.metrics.ssim import Ssim

__all__ = ["METRICS", "NEED_CLIP", "ClipBatch", "Metric", "MetricWeightFiles", "Rows", "make_metrics"]


@dataclass(frozen=True)
class MetricWeightFiles:
    """Where metrics find their networks; each is read when the first metric that needs it is made, and once for all of
    them.

    Attributes:
      networks: the directory of LPIPS and I3D that `fetch_metric_weights` wrote to; by default its own default.
      clip: the user's weights of CLIP, for `NEED_CLIP`.
    """

    networks: Path | None = None
    clip: ClipWeights | None = None

    @cached_property
    def i3d_features(self) -> I3DFeatures:
        """I3D, shared by FVD and KVD.

        Raises:
          UserError: the weights are not there or are damaged.
        """
        return I3DFeatures.load(self.networks)

    @cached_property
    def clip_features(self) -> ClipFeatures:
        """CLIP, shared by both similarities.

        Raises:
          UserError: there are no weights, or they cannot be read.
        """
        return ClipFeatures.load(self.clip)


METRICS: Mapping[str, Callable[[MetricWeightFiles], Metric]] = {
    "fvd": lambda weights: FrechetVideoDistance(weights.i3d_features),
    "kvd": lambda weights: KernelVideoDistance(weights.i3d_features),
    "lpips_alexnet": lambda weights: LpipsMetric.load("alexnet", weights.networks),
    "lpips_vgg16": lambda weights: LpipsMetric.load("vgg16", weights.networks),
    "clip_image": lambda weights: ClipImageSimilarity(weights.clip_features),
    "clip_text": lambda weights: ClipTextSimilarity(weights.clip_features),
    "cpbd": lambda weights: Cpbd(),
    "psnr": lambda weights: Psnr(),
    "ssim": lambda weights: Ssim(),
    "key_frames": lambda weights: KeyFrames(),
    "colour_drift": lambda weights: ColourDrift(),
    "flicker": lambda weights: Flicker(),
}
"""Every metric by its name, in the order of reports."""
NEED_CLIP = ("clip_image", "clip_text")
"""Those that need the user's own weights of CLIP."""


def make_metrics(names: Iterable[str], weights: MetricWeightFiles = MetricWeightFiles()) -> list[Metric]:
    """The metrics of these names, in this order, with the weights that they need and no others.

    Args:
      names: keys of `METRICS`.
      weights: where the networks are. Pass one object for several methods, so that the truth is encoded once.

    Raises:
      UserError: a name is unknown, before anything is read; or a network's weights are not there or are damaged.
    """
    chosen = list(names)
    for name in chosen:
        if name not in METRICS:
            near = difflib.get_close_matches(name.lower(), METRICS, n=1, cutoff=0.0)[0]
            raise UserError(
                f"there is no metric '{name}': did you mean '{near}'? (the metrics are {', '.join(METRICS)})"
            )
    return [METRICS[name](weights) for name in chosen]
