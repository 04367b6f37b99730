"""Cuts and gradual transitions are found where they are, and motion and flashes are none."""

from __future__ import annotations

import numpy as np
import pytest

from tests.curation.film_files import dissolve, moving, scene
from tooncrafter_jax.curation.shots import (
    ContentShots,
    GradualShots,
    ShotDetector,
    Transition,
    shots_between,
)

pytest.importorskip("scenedetect", reason="needs the extra 'data'")
FPS = 24.0


def found(detector: ShotDetector, pictures: np.ndarray) -> list[Transition]:
    watch = detector.watch(FPS)
    for picture in pictures:
        watch.see(picture)
    return watch.transitions()


def frames_of(transitions: list[Transition]) -> set[int]:
    return {frame for transition in transitions for frame in range(transition.start, transition.stop)}


def test_what_is_left_between_transitions():
    transitions = [Transition(40, 40), Transition(10, 20), Transition(15, 22), Transition(41, 60)]
    assert shots_between(70, transitions) == [(0, 10), (22, 40), (40, 41), (60, 70)]
    assert shots_between(70, transitions, trim=2) == [(0, 8), (24, 38), (62, 70)]
    assert shots_between(70, []) == [(0, 70)]
    assert shots_between(5, [Transition(0, 5)]) == shots_between(0, []) == []


def test_a_hard_cut_is_before_the_first_frame_of_the_new_shot():
    pictures = np.concatenate([moving(0, 30), moving(1, 30)])
    assert found(ContentShots(), pictures) == [Transition(30, 30)]
    assert found(ContentShots(threshold=250.0), pictures) == []


def test_a_shot_below_the_shortest_is_none():
    pictures = np.concatenate([moving(0, 30), moving(1, 10), moving(2, 30)])
    assert shots_between(70, found(ContentShots(), pictures)) == [(0, 30), (40, 70)]
    assert shots_between(70, found(ContentShots(min_length=10), pictures)) == [(0, 30), (30, 40), (40, 70)]


@pytest.mark.parametrize("length", [6, 12, 24, 40])
def test_a_dissolve_is_found_with_all_its_frames(length):
    before, after = moving(0, 80), moving(1, 80)
    pictures = np.concatenate(
        [before[:30], dissolve(before[30 : 30 + length], after[30 : 30 + length], length), after[:50]]
    )
    inside = set(range(30, 30 + length))
    assert found(ContentShots(), pictures) == []  # which is why there is another detector
    marked = frames_of(found(GradualShots(), pictures))
    assert len(inside - marked) <= 0.3 * length  # the first and last still look like the one shot
    assert not {*range(30 + length // 5, 30 + length - length // 5)} - marked
    assert len(marked - inside) <= 4 + 0.25 * length


@pytest.mark.parametrize("end", [0, 255])
def test_fades(end):
    shot = moving(0, 50)
    blank = np.full_like(shot[:20], end)
    pictures = np.concatenate([shot, dissolve(shot[-1:], blank[:1], 16), blank])
    marked = frames_of(found(GradualShots(), pictures))
    assert set(range(54, 62)) <= marked
    assert not marked & {*range(45), *range(75, 86)}


def test_a_wipe_is_found():
    before, after = scene(0), scene(1)
    pictures = np.stack(
        [before] * 20 + [np.where(np.arange(96)[:, None] < 6 * n, after, before) for n in range(17)] + [after] * 20
    )
    assert set(range(26, 30)) <= frames_of(found(GradualShots(), pictures))


def test_motion_and_lights_are_no_transitions():
    wide = scene(3, width=480)
    pan = np.stack([wide[:, 4 * n : 4 * n + 96] for n in range(60)])
    lights = moving(0, 60).astype(np.float32)
    lights[20:40] *= np.abs(np.linspace(-1, 1, 20))[:, None, None, None] * 0.8 + 0.2  # darker and bright again
    for pictures in (pan, moving(0, 90, step=3), lights.astype(np.uint8), np.repeat(scene(0)[None], 60, 0)):
        assert found(GradualShots(), pictures) == []
        assert found(ContentShots(threshold=60.0), pictures) == []
    assert found(ContentShots(), moving(0, 60)) == []


def test_fast_motion_on_twos_is_cut_only_where_the_shot_ends():
    """Every drawing changes more than the threshold, so the bare rule cuts at each."""

    def chase(seed: int) -> np.ndarray:
        wide = scene(seed, width=300)
        return np.stack([wide[:, 6 * (n // 2) : 6 * (n // 2) + 96] for n in range(60)])

    pictures = np.concatenate([chase(3), chase(9)])
    assert found(ContentShots(), pictures) == [Transition(60, 60)]
    assert len(found(ContentShots(times_usual=0.0), pictures)) > 20


def test_settings_tell_detectors_apart():
    assert ContentShots().settings() == {"threshold": 27.0, "min_length": 15, "times_usual": 1.6}
    assert GradualShots(residual=0.4).settings() != GradualShots().settings()
