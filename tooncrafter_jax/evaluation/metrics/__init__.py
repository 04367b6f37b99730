"""Metrics of generated clips, one file each; `metric.Metric` says what all of them have in common.

`make_metrics` builds them by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

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
from tooncrafter_jax.evaluation.metrics.ssim import Ssim, SsimGrey

__all__ = ["METRICS", "NEED_CLIP", "ClipBatch", "Metric", "MetricEntry", "MetricWeightFiles", "Rows", "make_metrics"]


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


class MetricEntry(NamedTuple):
    """A metric that can be asked for.

    Attributes:
      make: makes it.
      needs: weights that have to be there: those that `fetch_metric_weights` fetches, or the user's own of CLIP.
    """

    make: Callable[[MetricWeightFiles], Metric]
    needs: Literal["networks", "clip"] | None = None


METRICS: Mapping[str, MetricEntry] = {
    "fvd": MetricEntry(lambda weights: FrechetVideoDistance(weights.i3d_features), "networks"),
    "kvd": MetricEntry(lambda weights: KernelVideoDistance(weights.i3d_features), "networks"),
    "lpips_alexnet": MetricEntry(lambda weights: LpipsMetric.load("alexnet", weights.networks), "networks"),
    "lpips_vgg16": MetricEntry(lambda weights: LpipsMetric.load("vgg16", weights.networks), "networks"),
    "clip_image": MetricEntry(lambda weights: ClipImageSimilarity(weights.clip_features), "clip"),
    "clip_text": MetricEntry(lambda weights: ClipTextSimilarity(weights.clip_features), "clip"),
    "cpbd": MetricEntry(lambda _: Cpbd()),
    "psnr": MetricEntry(lambda _: Psnr()),
    "ssim": MetricEntry(lambda _: Ssim()),
    "ssim_grey": MetricEntry(lambda _: SsimGrey()),
    "key_frames": MetricEntry(lambda _: KeyFrames()),
    "colour_drift": MetricEntry(lambda _: ColourDrift()),
    "flicker": MetricEntry(lambda _: Flicker()),
}
"""Every metric by its name, in the order of reports; a new one is a file here, a line above and a test."""
NEED_CLIP = tuple(name for name, entry in METRICS.items() if entry.needs == "clip")
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
    return [METRICS[name].make(weights) for name in chosen]
