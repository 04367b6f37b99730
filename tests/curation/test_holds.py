"""Drawings a second, whatever the encoder does to held ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.curation.film_files import moving, scene, write_film
from tooncrafter_jax.curation.films import Films
from tooncrafter_jax.curation.holds import Holds, new_drawings
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.data.records import clip_of_pictures

pytest.importorskip("cv2", reason="needs the extra 'data'")


def measured(pictures: np.ndarray, fps: float = 24.0, **settings) -> float:
    return Holds(**settings)(clip_of_pictures(pictures, fps=fps, id="a", source="a")).effective_fps


def with_noise(pictures: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, pictures.shape)
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("held", [1, 2, 3])
@pytest.mark.parametrize("deviation", [0.0, 4.0])
def test_on_ones_twos_and_threes(held, deviation):
    pictures = with_noise(moving(0, 36 // held, step=3).repeat(held, 0), deviation)
    assert measured(pictures) == 24.0 / held


def test_a_small_thing_that_moves_is_a_new_drawing():
    """Eight pixels of 256 x 192, which the mean over the picture does not show."""
    pictures = np.repeat(scene(0, 192, 264)[None, :, :256], 24, 0)
    for index in range(24):
        pictures[index, 90:98, 100 + 2 * index : 108 + 2 * index] = 255
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() < 0.2
    assert measured(pictures) == 24.0


def test_a_still_has_one_drawing():
    assert measured(np.repeat(scene(0)[None], 24, 0)) == 1.0
    assert measured(scene(0)[None]) == 24.0


def test_mixed_rates():
    pictures = moving(0, 40, step=3)
    order = [0, 0, 0, 0, 1, 2, 3, 4, 4, 5, 5, 5]
    changes = new_drawings(pictures[order], 5.0, 12.0)
    assert changes.tolist() == [False] * 3 + [True] * 4 + [False, True, False, False]


def test_through_an_encoder(tmp_path):
    write_film(tmp_path / "a.mp4", moving(0, 24, step=3).repeat(2, 0), fps=24, options={"crf": "26"})
    (clip,) = Films(tmp_path, detectors=()).clips("a")
    assert Holds()(clip).effective_fps == pytest.approx(12.0, abs=0.6)  # the first held frame refines a key frame


def test_it_is_a_stage_and_changes_nothing_else():
    clip = clip_of_pictures(moving(0, 20), fps=12.0, id="a", source="b", caption="c", scores={"motion": 1.0})
    after = Holds()(clip)
    assert isinstance(Holds(), Stage)
    assert (after.id, after.frames, after.caption, after.scores["motion"]) == (clip.id, clip.frames, "c", 1.0)
    assert Holds(least=6.0).settings() == {"least": 6.0, "most": 12.0}
