"""Pictures are read once, beside sampling, and what can be known without reading them is reported first."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.world import Command, World, draw, write_folder
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import read_image
from tooncrafter_jax.io.recent_pictures import RecentPictures
from tooncrafter_jax.sampling.batch.jobs import Job
from tooncrafter_jax.sampling.batch.preparing import Preparation, Ready
from tooncrafter_jax.sampling.request import Pair, PreparedPair


def test_each_picture_of_a_list_is_decoded_once_and_hashed_once(
    empty: World, command: Command, decoded: Counter[str], hashed: Counter[str]
):
    for number in range(7):
        draw(empty.path / f"p{number}.png", 10 * number)
    lines = [{"first": f"p{number}.png", "last": f"p{number + 1}.png"} for number in range(6)]
    assert command("sample", *empty.manifest(*lines)).code == 0
    pictures = {f"p{number}.png" for number in range(7)}
    assert {name: decoded[name] for name in pictures} == dict.fromkeys(pictures, 1)
    assert {name: hashed[name] for name in pictures} == dict.fromkeys(pictures, 1)


def test_no_picture_of_a_clip_that_was_never_made_is_read_before_it_is_its_turn(
    empty: World, command: Command, decoded: Counter[str]
):
    seen: list[int] = []
    empty.model.before = lambda number: seen.append(len(decoded)) or time.sleep(0.05)
    command("sample", *empty.folder(write_folder(empty.path / "folder", 20)))
    assert seen[0] <= 2 * 5 and len(decoded) == 40, "the first clip waited for all"


def test_a_missing_picture_is_found_before_any_is_read(empty: World, command: Command, decoded: Counter[str]):
    lines = [{"first": f"no{number}.png", "last": "last.png"} for number in range(300)]
    result = command("sample", *empty.manifest(*lines))
    assert result.code == 1 and "0 made, 0 done before, 300 failed" in result.out
    assert not decoded and not empty.model.batches


def test_no_model_is_loaded_where_no_picture_can_be_read(empty: World, command: Command, monkeypatch: Any):
    monkeypatch.setattr(
        "tooncrafter_jax.sampling.batch.model_source.ModelSource.load", lambda *_: pytest.fail("the model was loaded")
    )
    folder = write_folder(empty.path / "folder", 3)
    for picture in folder.glob("*.png"):
        picture.write_text("no picture")
    result = command("sample", *empty.folder(folder))
    assert result.code == 1 and len(result.errors) == 3


def test_a_picture_that_changes_is_read_again(tmp_path: Path, decoded: Counter[str]):
    path = draw(tmp_path / "a.png", 10)
    with RecentPictures().used():
        before = read_image(path)
        assert (read_image(path) == before).all() and decoded["a.png"] == 1
        draw(path, 50)
        assert (read_image(path) != before).any() and decoded["a.png"] == 2
    read_image(path)
    assert decoded["a.png"] == 3


def test_only_a_few_pictures_stay_in_memory(tmp_path: Path, decoded: Counter[str]):
    paths = [draw(tmp_path / f"{number}.png", number) for number in range(3)]
    with RecentPictures(2).used():
        for path in (*paths, paths[2], paths[0]):
            read_image(path)
    assert decoded == {"0.png": 2, "1.png": 1, "2.png": 1}


def prepared(job: Job) -> Ready:
    if job.name == "bad":
        raise UserError("no picture")
    return Ready(PreparedPair(np.zeros(1), None, job.name, 1, 1), {})


def jobs(*names: str) -> list[Job]:
    return [Job(name, Pair("a.png", "b.png")) for name in names]


def test_clips_are_prepared_ahead_in_a_thread_and_no_more_than_asked(tmp_path: Path):
    began: list[tuple[str, int]] = []

    def prepare(job: Job) -> Ready:
        began.append((job.name, threading.get_ident()))
        return prepared(job)

    todo = jobs(*"abcdefgh")
    with Preparation(prepare, ahead=3) as preparation:
        preparation.start(todo)
        assert preparation.get(todo[0]).pair.prompt == "a"
        assert preparation.get(todo[1]).pair.prompt == "b"
        deadline = time.monotonic() + 10
        while len(began) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert [name for name, _ in began] == list("abcde")
        assert threading.get_ident() not in {thread for _, thread in began}


def test_what_is_dropped_leaves_its_place_and_can_still_be_had():
    todo = jobs(*"abcdef")
    with Preparation(prepared, ahead=2) as preparation:
        preparation.start(todo)
        for job in todo[:4]:
            preparation.drop(job)
        assert preparation.get(todo[4]).pair.prompt == "e"
        assert preparation.get(todo[0]).pair.prompt == "a"


def test_what_is_wrong_with_a_clip_is_reported_where_it_is_asked_for():
    (bad,) = todo = jobs("bad")
    with Preparation(prepared, ahead=2) as preparation:
        preparation.start(todo)
        assert preparation.problem_with(bad) == "no picture"
        with pytest.raises(UserError, match="no picture"):
            preparation.get(bad)
