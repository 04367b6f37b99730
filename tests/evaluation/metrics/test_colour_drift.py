"""Colour drift is the distance of a frame's mean colour from the line between the key frames'."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.reference import GOLDEN
from tooncrafter_jax.evaluation.metrics.colour_drift import ColourDrift


def grey_clip(*levels: float) -> np.ndarray:
    """A frame of each L*, uint8 (1, T, 8, 8, 3); L* rounded to what a byte can say."""
    y = [((level + 16) / 116) ** 3 for level in levels]  # above 8 the inverse of L*
    coded = [1.055 * value ** (1 / 2.4) - 0.055 for value in y]
    return np.broadcast_to(np.rint(255 * np.array(coded))[:, None, None, None], (len(levels), 8, 8, 3)).astype(
        np.uint8
    )[None]


def test_a_fade_has_none_and_a_jump_its_size() -> None:
    """A byte is up to 0.45 of L* at these greys, so a level is met to 0.25."""
    truth = grey_clip(30, 70, 20, 60)
    fade, jump = grey_clip(30, 40, 50, 60), grey_clip(30, 48, 50, 60)
    rows = ColourDrift().measure(batch(np.concatenate([fade, jump]), np.concatenate([truth, truth])))["colour_drift"]
    np.testing.assert_allclose(rows, [[0, 0, 0, 0], [0, 8, 0, 0]], atol=0.5)
    assert rows[0, 0] < 1e-4 and rows[0, 3] < 1e-4  # the key frames themselves


def test_against_scikit_image() -> None:
    """From the stored mean colours of scikit-image (make_skimage.py), with the changed clips as truth."""
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        first, middle, last = theirs["mean_lab"].transpose(1, 0, 2)
    truth = changed_clips()
    videos = truth.copy()
    videos[:, 0] = truth[:, 1]
    rows = ColourDrift().measure(batch(videos, truth))
    expected = [np.linalg.norm(middle - first, axis=-1), np.linalg.norm(middle - (first + last) / 2, axis=-1), [0, 0]]
    np.testing.assert_allclose(rows["colour_drift"], np.transpose(expected), atol=5e-5)
    assert ColourDrift().summarise(rows) == pytest.approx(np.mean(expected), abs=5e-5)
    assert np.mean(expected) > 1


def test_motion_within_the_frame_is_no_drift() -> None:
    truth = np.broadcast_to(clips(1, 1), (1, 5, 47, 56, 3))
    videos = np.stack([np.roll(truth[0, t], 7 * t, 1) for t in range(5)])[None]
    assert ColourDrift().measure(batch(videos, truth))["colour_drift"].max() < 1e-3
