"""Agreement is the cosine of caption and frames, where there is a caption."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest

from tests.curation import small_clip
from tests.curation.film_files import scene
from tooncrafter_jax.curation.agreement import OFF, Agreement
from tooncrafter_jax.curation.clip_model import clip_pixels
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.models.tokenizer import tokenizer

VALUES = small_clip.tensors()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_clip.saved(tmp_path_factory.mktemp("clip"), VALUES)


def clip_of(caption: str, **fields):
    pictures = np.stack([scene(seed) for seed in (1, 2, 3, 4, 5)])
    return clip_of_pictures(pictures, fps=2.0, id="a", source="a", caption=caption, **fields)


def test_the_mean_cosine_with_first_middle_and_last_frame(weights):
    clip = Agreement(weights)(clip_of("a fox runs", scores={"motion": 3.0}))
    (ids,) = tokenizer()(["a fox runs"])
    text = small_clip.text_vector(VALUES, ids, False)
    shown = [small_clip.picture_vector(VALUES, clip_pixels(picture, 28), False) for picture in clip.decode([0, 2, 4])]
    assert clip.scores["agreement"] == pytest.approx(np.mean(shown @ text), abs=1e-5)
    assert clip.scores["motion"] == 3.0
    assert Agreement(weights)(clip_of("a bird")).scores["agreement"] != clip.scores["agreement"]


def test_a_clip_without_a_caption_has_none(weights):
    clip = clip_of("")
    assert Agreement(weights)(clip) is clip and math.isnan(clip.scores["agreement"])


def test_without_weights_it_is_off_and_says_so():
    clip = clip_of("a fox")
    assert Agreement()(clip) is clip
    assert Agreement().off == OFF and Agreement().settings() == {"off": OFF}


def test_it_is_a_stage_with_settings(weights):
    stage = pickle.loads(pickle.dumps(Agreement(weights)))
    assert stage.off == "" and isinstance(stage, Stage)
    assert json.loads(json.dumps(stage.settings())) == stage.settings()
