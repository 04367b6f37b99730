"""From a folder of films to clips."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest

from tests.curation.film_files import LOSSLESS, dissolve, moving, number_of, numbered, scene, write_film
from tooncrafter_jax.curation.films import Films
from tooncrafter_jax.curation.protocols import ChangingSources, Production
from tooncrafter_jax.curation.shots import Transition
from tooncrafter_jax.errors import UserError

pytest.importorskip("scenedetect", reason="needs the extra 'data'")


class At:
    """Transitions at given places."""

    name = "at"

    def __init__(self, *transitions: Transition):
        self.given = list(transitions)

    def watch(self, fps):
        return self

    def see(self, picture):
        pass

    def transitions(self):
        return self.given

    def settings(self):
        return {"given": [[t.start, t.stop] for t in self.given]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    before, after = moving(0, 60), moving(1, 60)
    pictures = np.concatenate([before[:30], moving(2, 30), dissolve(moving(2, 1), after[:1], 12), after[:40]])
    write_film(folder / "Erster Film – 映画.mp4", pictures, fps=24, options={"crf": "12"})
    write_film(folder / "series" / "1.mkv", numbered(40), fps=20, **LOSSLESS)
    write_film(folder / "series" / "1.avi", numbered(4), fps=20, codec="mjpeg", pixels="yuvj420p")
    (folder / ".hidden.mp4").write_bytes(b"no film")
    (folder / "notes.txt").write_text("no film")
    return folder


def test_films_are_found_and_named(folder):
    films = Films(folder)
    assert films.sources() == ["Erster Film – 映画", "series/1.avi", "series/1.mkv"]
    assert films.path("series/1.mkv") == folder / "series" / "1.mkv"
    assert Films(str(folder / "series" / "1.mkv")).sources() == ["1"]
    twice = Films([folder / "series", folder / "series" / "1.mkv", folder])
    assert len(twice.sources()) == 3


def test_two_folders_with_the_same_names(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "film.mp4").write_bytes(b"x")
    assert Films([tmp_path / "a", tmp_path / "b"]).sources() == ["a/film.mp4", "b/film.mp4"]


def test_a_name_that_is_no_text(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"f\xfflm.mp4")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only text for names")
    films = Films(tmp_path)
    assert films.sources() == ["f\ufffdlm"]
    assert films.state("f\ufffdlm")["bytes"] == 1


def test_clips_contain_neither_cut_nor_dissolve(folder):
    """Cut before 30, dissolve over 60 to 71."""
    clips = list(Films(folder, shortest=0.5, trim=5).clips("Erster Film – 映画"))
    first, second, third = [(clip.start_frame, clip.start_frame + len(clip)) for clip in clips]
    assert first == (0, 25)
    assert second[0] == 35 and 48 <= second[1] <= 60
    assert 72 <= third[0] <= 94 and third[1] == 112
    for clip, seed in zip(clips, (0, 2, 1), strict=True):
        shown = clip.decode()
        still = np.concatenate([shown[:, :18], shown[:, 40:]], 1).astype(int)  # above and below the moving square
        picture = np.concatenate([scene(seed)[:18], scene(seed)[40:]])
        assert np.abs(still - picture).mean() < 12


def test_records_of_clips(folder):
    (clip,) = Films(folder, detectors=()).clips("series/1.mkv")
    assert (clip.id, clip.source, clip.start_frame) == ("series/1.mkv/000000-000040", "series/1.mkv", 0)
    assert (clip.fps, clip.effective_fps, clip.height, clip.width) == (20.0, 20.0, 24, 32)
    assert [number_of(picture) for picture in clip.decode()] == list(range(40))


def test_lengths_and_trimming(folder):
    films = Films(folder, detectors=[At(Transition(4, 6), Transition(37, 37))], shortest=0.8, longest=1.6, trim=1)
    assert films.ranges("series/1.mkv") == [(7, 36)]  # 0 to 3 and 38 to 39 are too short
    assert [number_of(clip.decode([0])[0]) for clip in films.clips("series/1.mkv")] == [7]
    divided = Films(folder, detectors=[At(Transition(4, 6))], shortest=0.5, longest=1.0, trim=1)
    assert divided.ranges("series/1.mkv") == [(7, 24), (24, 40)]
    clips = list(divided.clips("series/1.mkv"))
    assert [number_of(p) for clip in clips for p in clip.decode()] == list(range(7, 40))
    assert not list(films.clips("series/1.avi"))  # four frames
    whole = Films(folder, detectors=[At(Transition(4, 6))], shortest=0.5, longest=float("inf"), trim=1)
    assert whole.ranges("series/1.mkv") == [(7, 40)]


def test_another_rate(folder):
    films = Films(folder, detectors=(), fps=10.0)
    (clip,) = films.clips("series/1.mkv")
    assert clip.fps == 10.0
    assert [number_of(picture) for picture in clip.decode()] == [*range(0, 40, 2), 39]


def test_it_travels_and_tells_what_it_depends_on(folder):
    films = pickle.loads(pickle.dumps(Films(folder)))
    assert isinstance(films, Production) and isinstance(films, ChangingSources)
    assert films.sources() == Films(folder).sources()
    assert json.loads(json.dumps(films.settings())) == films.settings()
    others = [
        Films(folder, cover=(64, 64)),
        Films(folder, trim=4),
        Films(folder, shortest=2.0),
        Films(folder, fps=12.0),
        Films(folder, detectors=()),
    ]
    assert all(other.settings() != films.settings() for other in others)


def test_a_changed_film_has_another_state(tmp_path):
    film = tmp_path / "a.mp4"
    film.write_bytes(b"x")
    films = Films(tmp_path)
    before = films.state("a")
    film.write_bytes(b"xy")
    assert films.state("a") != before
    film.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        films.state("a")


def test_films_without_clips(tmp_path):
    write_film(tmp_path / "one frame.mkv", numbered(1), **LOSSLESS)
    write_film(tmp_path / "one colour.mkv", np.full((48, 24, 32, 3), 90, np.uint8), fps=24, **LOSSLESS)
    films = Films(tmp_path)
    assert list(films.clips("one frame")) == []
    (still,) = films.clips("one colour")  # dropped later, by its motion
    assert len(still) == 48


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: Films(f / "nowhere").sources(), "does not exist"),
        (lambda f: Films(f / "empty").sources(), "no film is in"),
        (lambda f: Films(f, shortest=2.0, longest=3.0), "at least twice the shortest"),
        (lambda f: Films(f, fps=0.1), "1 to 240 frames"),
        (lambda f: list(Films(f / "damaged.mp4").clips("damaged")), "not a film or is cut off"),
    ],
)
def test_mistakes_are_reported(tmp_path, make, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.mp4").write_bytes(b"\0" * 2000)
    with pytest.raises(UserError, match=message):
        make(tmp_path)


def test_an_unreadable_folder_is_reported(tmp_path, monkeypatch):
    """By a refusal of the system's: root may read everything."""
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="locked' cannot be read .Permission denied."):
        Films(tmp_path).sources()
