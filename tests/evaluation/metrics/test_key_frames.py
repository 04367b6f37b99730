"""The first and the last frame are compared with the truth's, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tests.reference import GOLDEN
from tooncrafter_jax.evaluation.metrics.key_frames import KeyFrames


def test_the_ends_alone() -> None:
    """The ratio of a changed frame is scikit-image's (make_skimage.py)."""
    videos = clips()
    videos[:, 1] = 255 - videos[:, 1]
    videos[1, 2] = changed_clips()[1, 2]
    rows = KeyFrames().measure(batch(videos, clips()))
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        expected = theirs["psnr"][1, 2]
    np.testing.assert_allclose(rows["key_frames"], [[100, 100], [100, expected]], atol=2e-5)
    assert KeyFrames().summarise(rows) == pytest.approx((300 + expected) / 4, abs=2e-5)
    assert KeyFrames().by_frame(rows) is None
