"""Clips of any size reach I3D as 224x224 in [-1, 1], bilinear, and its logits do not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.evaluation.metrics.features import FakeLogits
from tests.reference import GOLDEN, deviation
from tests.zoo.metric_inputs import clip
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.frechet_video_distance import FrechetVideoDistance
from tooncrafter_jax.evaluation.metrics.i3d_features import (
    FEWEST_CLIPS,
    LOGITS,
    TRUE_LOGITS,
    I3DFeatures,
    I3DLogits,
    resized,
    too_few_clips,
)
from tooncrafter_jax.evaluation.metrics.kernel_video_distance import KernelVideoDistance
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.zoo.i3d.network import I3D, I3DConfig
from tooncrafter_jax.zoo.metric_weights import LoadedNetwork, load_i3d


def bilinear(picture: np.ndarray, size: int) -> np.ndarray:
    """From the definition, in float64: output pixel i looks at (i + 1/2) n / size - 1/2, clamped to the picture."""
    for axis in (0, 1):
        length = picture.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = np.expand_dims(place - low, tuple(a for a in range(3) if a != axis))
        picture = np.take(picture, low, axis) * (1 - share) + np.take(picture, high, axis) * share
    return picture


@pytest.mark.parametrize(("height", "width"), [(47, 56), (320, 512), (224, 224), (301, 97)])
def test_resizing_equals_its_definition(height: int, width: int) -> None:
    """Smaller, larger and odd: no antialiasing and no crop. A float32 position near 512 is off by 3e-5 pixels.

    Of neighbours that differ by up to 2, along two axes, that makes 1.2e-4; 7e-5 was seen.
    """
    video = np.random.default_rng(0).uniform(-1, 1, (1, 1, height, width, 3)).astype(np.float32)
    ours = np.asarray(resized(jnp.asarray(video), 224))[0, 0]
    assert np.abs(ours - bilinear(video[0, 0].astype(np.float64), 224)).max() < 1.5e-4


@pytest.mark.gate
def test_logits_through_the_wrapper_equal_the_packaged_network(metric_weights: Path) -> None:
    """The clip of tests/golden/metrics/make.py, rounded to bytes: its logits move by a hundredth of their deviation.

    The same clips in another batch, and as truth, have the same logits; an equal clip is at distance 0.
    """
    network = I3DLogits(load_i3d(metric_weights))
    video = np.rint((clip() + 1) * 127.5).astype(np.uint8)
    features = I3DFeatures(network)
    rows = features.rows(batch(video, video))
    with np.load(GOLDEN / "metrics" / "packaged.npz") as packaged:
        assert deviation(rows[LOGITS], packaged["i3d_logits"]) < 0.02
    np.testing.assert_array_equal(rows[LOGITS], rows[TRUE_LOGITS])


def test_both_distances_run_the_network_once() -> None:
    network = FakeLogits()
    features = I3DFeatures(network)
    both = batch(changed_clips(), clips())
    rows = [metric(features).measure(both) for metric in (FrechetVideoDistance, KernelVideoDistance)]
    assert network.calls == [2, 2]
    assert all(rows[0][name] is rows[1][name] for name in (LOGITS, TRUE_LOGITS))


def test_short_clips_and_few_clips() -> None:
    with pytest.raises(UserError, match="at least 9 frames, not 3"):
        I3DLogits(LoadedNetwork(Network(I3D, I3DConfig()), {}))(clips())
    assert too_few_clips(FEWEST_CLIPS) == ""
    assert "255 clips, fewer than 256" in too_few_clips(255)
