"""Fingerprints are near for what looks the same, and far for what does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.curation.film_files import moving, scene
from tooncrafter_jax.curation.fingerprint import Fingerprint, distance
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.errors import UserError

pytest.importorskip("imagehash", reason="needs the extra 'data'")


def clip_of(pictures: np.ndarray) -> Clip:
    return clip_of_pictures(pictures, fps=2.0, id="a", source="a")


def of(pictures: np.ndarray) -> str:
    return Fingerprint()(clip_of(pictures)).fingerprint


def test_what_looks_the_same_is_near():
    clip = moving(0, 9, step=4)
    larger = np.stack([np.asarray(Image.fromarray(picture).resize((200, 150))) for picture in clip])
    darker = (0.8 * clip + 10).astype(np.uint8)
    noisy = np.clip(clip + np.random.default_rng(0).normal(0, 8, clip.shape), 0, 255).astype(np.uint8)
    for other in (clip, larger, darker, noisy, clip[[0, 1, 4, 7, 8]]):
        assert distance(of(clip), of(other)) < 0.08


def test_what_looks_different_is_far():
    prints = [of(scene(seed)[None]) for seed in range(8)]
    distances = [distance(one, other) for i, one in enumerate(prints) for other in prints[:i]]
    assert min(distances) > 0.25 and 0.4 < np.mean(distances) < 0.6


def test_each_of_first_middle_and_last_frame_counts_a_third():
    parts = [np.repeat(scene(seed)[None], 3, 0) for seed in (0, 1, 2)]
    base = of(np.concatenate(parts))
    assert len(base) == 48
    for place in range(3):
        changed = list(parts)
        changed[place] = np.repeat(scene(9)[None], 3, 0)
        other = of(np.concatenate(changed))
        same = [base[16 * i : 16 * i + 16] == other[16 * i : 16 * i + 16] for i in range(3)]
        assert same == [i != place for i in range(3)]


def test_short_clips_have_fingerprints_of_the_same_length():
    assert len(of(scene(0)[None])) == len(of(moving(0, 2))) == 48
    assert len(Fingerprint(side=16)(clip_of(scene(0)[None])).fingerprint) == 3 * 64


def test_distance():
    assert distance("00", "ff") == 1 and distance("0f", "0e") == 0.125
    with pytest.raises(ValueError, match="2 and 4 digits"):
        distance("00", "0000")


def test_it_is_a_stage_with_settings():
    assert isinstance(Fingerprint(), Stage)
    assert json.loads(json.dumps(Fingerprint().settings())) == Fingerprint().settings()
    assert Fingerprint(16).settings() != Fingerprint().settings()
    with pytest.raises(UserError, match="even number"):
        Fingerprint(7)
