"""Cosines of the vectors of CLIP's definition, and a sentence where there are no weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.curation import small_clip
from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tooncrafter_jax.curation.clip_model import ClipModel, clip_pixels
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.clip_similarity import ClipFeatures, ClipImageSimilarity, ClipTextSimilarity
from tooncrafter_jax.models.tokenizer import tokenizer

PROMPTS = ("a fox that runs", "", "a bird")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> ClipFeatures:
    return ClipFeatures(ClipModel(small_clip.saved(tmp_path_factory.mktemp("clip"), small_clip.tensors())))


def vectors(videos: np.ndarray) -> np.ndarray:
    """From the numpy definition of the tower in small_clip.py."""
    values = small_clip.tensors()
    return np.array(
        [[small_clip.picture_vector(values, clip_pixels(frame, small_clip.SIZE), False) for frame in v] for v in videos]
    )


def test_cosines_of_frames(features: ClipFeatures) -> None:
    rows = ClipImageSimilarity(features).measure(batch(changed_clips(), clips()))
    expected = (vectors(changed_clips()) * vectors(clips())).sum(-1)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(rows["clip_image"], expected, atol=1e-5)
    equal = ClipImageSimilarity(features).measure(batch(clips(), clips()))
    np.testing.assert_allclose(equal["clip_image"], 1, atol=1e-6)


def test_cosines_with_prompts(features: ClipFeatures) -> None:
    """A clip without a prompt has no cosine and does not count."""
    videos, metric = changed_clips(3), ClipTextSimilarity(features)
    rows = metric.measure(batch(videos, clips(3), PROMPTS))
    ids = tokenizer()(PROMPTS)
    texts = np.array([small_clip.text_vector(small_clip.tensors(), row, False) for row in ids])
    expected = np.einsum("btd,bd->bt", vectors(videos), texts)
    np.testing.assert_allclose(rows["clip_text"][[0, 2]], expected[[0, 2]], atol=1e-5)
    assert np.isnan(rows["clip_text"][1]).all()
    assert metric.summarise(rows) == pytest.approx(expected[[0, 2]].mean(), abs=1e-5)


def test_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs weights of CLIP.*name a file .*or leave clip_image and clip_text out"):
        ClipFeatures.load(None)
