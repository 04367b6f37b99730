"""A network runs once a batch for all metrics, and once for the truth of all methods."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.evaluation.metrics.features import FakeLogits
from tooncrafter_jax.evaluation.metrics.shared_features import SharedFeatures


def test_every_clip_is_looked_at_once() -> None:
    network = FakeLogits()
    features = SharedFeatures(network)
    first, second = batch(changed_clips(), clips()), batch(clips(), changed_clips())
    for _ in range(2):  # as two metrics would
        np.testing.assert_array_equal(features.of_videos(first), FakeLogits()(changed_clips()))
        np.testing.assert_array_equal(features.of_truth(first), FakeLogits()(clips()))
    assert len(network.calls) == 2
    for _ in range(2):
        np.testing.assert_array_equal(features.of_truth(second), FakeLogits()(changed_clips()))
        np.testing.assert_array_equal(features.of_videos(second), FakeLogits()(clips()))
    assert len(network.calls) == 4


def test_the_truth_of_the_next_method_is_known() -> None:
    """It is another array of the same content, read again from a file."""
    network = FakeLogits()
    features = SharedFeatures(network)
    features.of_truth(batch(clips(), clips()))
    again = features.of_truth(batch(changed_clips(), clips().copy()))
    np.testing.assert_array_equal(again, FakeLogits()(clips()))
    assert len(network.calls) == 1
    other = clips().copy()
    other[1, 2, 3, 4, 2] ^= 1
    features.of_truth(batch(changed_clips(), other))
    assert len(network.calls) == 2


def test_the_features_of_one_batch_are_kept() -> None:
    features = SharedFeatures(lambda clips: np.ones((len(clips), 3), np.float32))
    first = weakref.ref(features.of_truth(batch(clips(), clips())))
    features.of_truth(batch(clips(), changed_clips()))
    gc.collect()
    assert first() is None


@pytest.mark.gate
def test_a_batch_at_the_place_of_one_that_is_gone_is_another() -> None:
    """Objects are distinguished by more than their address, which the next one may get."""
    features = SharedFeatures(FakeLogits())
    for videos in (clips(), changed_clips()) * 2:
        np.testing.assert_array_equal(features.of_videos(batch(videos, clips())), FakeLogits()(videos))
        gc.collect()
