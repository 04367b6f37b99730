"""The pipeline: what is made once and what again, failures, interruptions, and the set that comes out in the end."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.curation.fakes import (
    SLOW_FILMS,
    Cutter,
    FakeCaptions,
    FakeFilms,
    FakeFingerprint,
    FakeMotion,
    Unfinished,
    lines_of,
)
from tests.data.splits import split_sizes
from tooncrafter_jax.curation import pipeline
from tooncrafter_jax.curation.pipeline import Listener, curate, rethreshold
from tooncrafter_jax.curation.splits import SplitRule
from tooncrafter_jax.curation.thresholds import Thresholds
from tooncrafter_jax.curation.workspace import Workspace
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.errors import UserError

if importlib.util.find_spec("apache_beam") is None:
    pytest.skip("needs the extra 'data'", allow_module_level=True)

REPOSITORY = Path(__file__).parents[2]
FILMS = {"one": 3, "two, a sequel": 4, "drei/größer": 3}


@pytest.fixture
def films(tmp_path: Path) -> FakeFilms:
    return FakeFilms(FILMS, tmp_path / "log")


@pytest.fixture
def report() -> None:
    """For tests that look at the report; the others do without, as its pictures take time."""


@pytest.fixture(autouse=True)
def _no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "report" not in request.fixturenames:
        monkeypatch.setattr(pipeline, "write_report", lambda directory, *_: directory / "index.html")


def _stages(films: FakeFilms, **settings):
    return [FakeMotion(films.log, **settings), FakeFingerprint()]


def _curate(films: FakeFilms, out: Path, *, workers: int = 0, **settings: Any):
    return curate(films, settings.pop("stages", _stages(films)), out, workers=workers, **settings)


def _set(out: Path) -> dict[str, list]:
    """Every field of every clip of a set, by split and in order."""
    return {
        split: [
            {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip)} | {"scores": str(clip.scores)}
            for clip in ClipSet(out, split)
        ]
        for split in split_sizes(out)
    }


def _ids(out: Path) -> list[str]:
    return sorted(clip["id"] for clips in _set(out).values() for clip in clips)


def test_a_set_with_its_scores_splits_and_report(report, films, tmp_path):
    out = tmp_path / "out"
    outcome = _curate(films, out)
    assert (outcome.made, outcome.reused, outcome.failures) == (3, 0, {})
    assert _ids(out) == sorted(f"{film}/{n:03}" for film, count in FILMS.items() for n in range(1, count))
    sides = Counter()
    for split, clips in _set(out).items():
        for clip in clips:
            assert eval(clip["scores"], {"nan": math.nan})["motion"] == int(clip["id"][-3:]) + 0.5
            assert clip["thresholds"] == Thresholds().version and len(clip["fingerprint"]) == 32
            sides[clip["source"], split] = 1
    assert sorted(Counter(split for _, split in sides)) == ["test", "train"] and len(sides) == 3
    page = outcome.report.read_text()
    for picture in ("counts.png", "kept.png", "dropped-static.png", "cuts.png", "histogram-motion.png"):
        assert f'src="{picture}"' in page and (outcome.report.parent / picture).stat().st_size > 1000
    assert not list(out.glob(".*"))


def test_finished_sources_are_not_made_again(films, tmp_path):
    _curate(films, tmp_path / "out")
    before = _set(tmp_path / "out")
    more = dataclasses.replace(films, films=FILMS | {"four": 2})
    outcome = _curate(more, tmp_path / "out")
    assert (outcome.made, outcome.reused) == (1, 3)
    assert lines_of(films.log) == sorted([*FILMS, "four"])
    after = _set(tmp_path / "out")
    assert {c["id"] for s in before.values() for c in s} < {c["id"] for s in after.values() for c in s}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"version": 2}, 3),
        ({"states": {"one": 7}}, 1),
        ({"log": None}, 0),
    ],
    ids=["settings", "file", "nothing"],
)
def test_what_has_changed_is_made_again(films, tmp_path, change, again):
    _curate(films, tmp_path / "out")
    films = dataclasses.replace(films, **{name: value or films.log for name, value in change.items()})
    outcome = _curate(films, tmp_path / "out")
    assert (outcome.made, outcome.reused) == (again, 3 - again)
    assert len(lines_of(films.log)) == 3 + again


def test_clips_of_a_source_that_fails_for_a_time_are_not_lost(films, tmp_path):
    _curate(films, tmp_path / "out")
    before = _set(tmp_path / "out")
    away = dataclasses.replace(films, films=FILMS | {"one": "'one' cannot be read"}, states={"one": 7})
    assert _curate(away, tmp_path / "out").failures == {"one": "'one' cannot be read"}
    assert not [name for name in _ids(tmp_path / "out") if name.startswith("one")]
    outcome = _curate(films, tmp_path / "out")
    assert (outcome.made, outcome.reused, outcome.failures) == (0, 3, {})
    assert _set(tmp_path / "out") == before and len(lines_of(films.log)) == 3


@pytest.mark.gate
def test_stages_that_are_added_changed_or_left_out_need_no_other_reading(films, tmp_path):
    """The result is the same as if these stages had been there from the start."""
    fingerprint, captions = FakeFingerprint(), FakeCaptions({"one/001": "a cat"})
    motion, double = FakeMotion(films.log), FakeMotion(films.log, factor=2.0)
    for number, (stages, motions) in enumerate(
        [
            ([motion], 10),
            ([motion, captions], 0),
            ([motion, fingerprint, captions], 0),
            ([motion, fingerprint, FakeCaptions({"one/002": "a dog"})], 0),
            ([double, captions], 10),
            ([captions], 0),
        ]
    ):
        _curate(films, tmp_path / "out", stages=stages, thresholds=Thresholds(min_motion=None))
        assert lines_of(films.log) == sorted(FILMS), "films were read again"
        assert len(lines_of(films.log, "motion")) == motions
        fresh = dataclasses.replace(films, log=tmp_path / "fresh.log")
        _curate(fresh, tmp_path / f"{number}", stages=stages, thresholds=Thresholds(min_motion=None))
        assert _set(tmp_path / f"{number}") == _set(tmp_path / "out")
        films.log.write_text("".join(f"done {film}\n" for film in FILMS))


def test_a_stage_that_changes_more_than_it_may_is_reported(films, tmp_path):
    with pytest.raises(UserError, match="the stage 'cutter' has changed 'frames' of clip 'one/000'"):
        _curate(films, tmp_path / "out", stages=[Cutter()])


@pytest.mark.gate
def test_a_source_that_fails_is_reported_and_tried_again(report, films, tmp_path):
    bad = dataclasses.replace(films, films=FILMS | {"bad": "'bad' is cut off: copy it again", "odd": "unexpected"})
    sources = []
    outcome = _curate(bad, tmp_path / "out", listener=Listener(on_source=sources.append))
    assert outcome.failures["bad"] == "'bad' is cut off: copy it again"
    assert outcome.failures["odd"] == "an unexpected ZeroDivisionError: unexpected"
    assert (outcome.made, len(sources)) == (3, 5)
    assert not [name for name in _ids(tmp_path / "out") if name.startswith(("bad", "odd"))]
    page = outcome.report.read_text()
    assert "is cut off: copy it again" in page and "details in" in page
    failure = Workspace(tmp_path / "out" / "workspace").failure("odd")
    assert "fakes.py" in json.loads(failure.read_text())["details"]
    mended = dataclasses.replace(films, films=FILMS | {"bad": 3})
    outcome = _curate(mended, tmp_path / "out")
    assert (outcome.made, outcome.reused, outcome.failures) == (1, 3, {})


def test_other_thresholds_need_no_other_measurement(films, tmp_path):
    out = tmp_path / "out"
    _curate(films, out)
    films.log.unlink()
    outcome = rethreshold(out, thresholds={"min_motion": 2.0}, workers=0)
    assert _ids(out) == sorted(f"{film}/{n:03}" for film, count in FILMS.items() for n in range(2, count))
    assert outcome.decision.version == Thresholds(min_motion=2.0).version
    assert {clip["thresholds"] for clips in _set(out).values() for clip in clips} == {outcome.decision.version}
    rethreshold(out, splits={"test": 0}, workers=0)  # the threshold stays as it was
    assert len(_set(out)["train"]) == 4 and list(split_sizes(out)) == ["train"]
    rethreshold(out, thresholds={"min_motion": 1.0}, splits={"test": 0.004}, workers=0)
    again = _set(out)
    _curate(films, tmp_path / "fresh")
    assert again == _set(tmp_path / "fresh")


@pytest.mark.gate
def test_near_duplicates_of_other_films_are_dropped_and_shown_with_what_is_kept(report, films, tmp_path):
    stages = [FakeMotion(films.log), FakeFingerprint(by_number=True)]
    outcome = _curate(films, tmp_path / "out", stages=stages)
    assert len({clip["fingerprint"] for clips in _set(tmp_path / "out").values() for clip in clips}) == 3
    assert outcome.decision.num_kept == 3 and len(outcome.decision.dropped["duplicate"]) == 4
    assert (outcome.report.parent / "dropped-duplicate.png").exists()


def test_a_count_of_test_clips_is_met_and_the_rest_of_their_source_is_left_out(films, tmp_path):
    outcome = _curate(films, tmp_path / "out", splits=SplitRule(test=1))
    assert split_sizes(tmp_path / "out")["test"] == 1
    surplus = {clip.source for clip in outcome.decision.dropped["surplus"]}
    (test,) = {clip["source"] for clip in _set(tmp_path / "out")["test"]}
    assert surplus == {test}


@pytest.mark.gate
def test_processes_give_the_same_set_and_a_film_that_kills_one_costs_no_other(films, tmp_path):
    _curate(films, tmp_path / "here")
    deadly = dataclasses.replace(films, films=FILMS | {"deadly": 2}, crashing="deadly")
    outcome = _curate(deadly, tmp_path / "there", workers=2)
    assert _set(tmp_path / "there") == _set(tmp_path / "here")
    assert list(outcome.failures) == ["deadly"] and "killed by signal 9" in outcome.failures["deadly"]


# --- mistakes ---


@pytest.mark.gate
def test_thresholds_that_drop_everything_leave_the_old_set_and_a_report(report, films, tmp_path):
    out = tmp_path / "out"
    _curate(films, out)
    before = _set(out)
    for attempt in (
        lambda: rethreshold(out, thresholds={"min_motion": 99}, workers=0),
        lambda: _curate(films, out, thresholds=Thresholds(min_motion=99)),
    ):
        with pytest.raises(UserError, match=r"drop all 10 clips \(10 static\).*curate rethreshold"):
            attempt()
        assert _set(out) == before
        assert "min_motion = 99" in (out / "report" / "index.html").read_text()
    assert len(lines_of(films.log)) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "there are no films"),
        ({"bad": "'bad' is empty"}, "no source could be read; the first, 'bad': 'bad' is empty"),
        ({"short": 0}, "none of the 1 sources that could be read has a clip"),
    ],
)
def test_nothing_to_make_a_set_from(films, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        _curate(dataclasses.replace(films, films=given), tmp_path / "out")


def test_a_stage_that_cannot_work_is_found_before_any_film_is_read(films, tmp_path):
    with pytest.raises(UserError, match="no model to measure with"):
        _curate(films, tmp_path / "out", stages=[Unfinished()])
    assert not lines_of(films.log, "read")


def test_another_production_or_run_in_the_same_directory_is_refused(films, tmp_path):
    _curate(films, tmp_path / "out")
    with pytest.raises(UserError, match="holds a set made from films: choose another directory"):
        _curate(dataclasses.replace(films, name="bodies"), tmp_path / "out")
    with (
        Workspace(tmp_path / "out" / "workspace").lock(),
        pytest.raises(UserError, match="another run is working on"),
    ):
        _curate(films, tmp_path / "out")
    with pytest.raises(UserError, match="has no finished set"):
        rethreshold(tmp_path / "nowhere")


@pytest.mark.gate
def test_damaged_files_of_the_workspace_are_made_again_or_told(films, tmp_path):
    out = tmp_path / "out"
    _curate(films, out)
    before = _set(out)
    for damage in (_cut, lambda path: path.write_text("{"), Path.unlink):
        for kind in ("*.array_record", "*.json"):
            damage(sorted((out / "workspace" / "sources").glob(kind))[0])
            outcome = _curate(films, out)
            assert outcome.made == 1 and _set(out) == before
    victim = sorted((out / "workspace" / "sources").glob("*.array_record"))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)  # of the right size
    victim.write_bytes(bytes(data))
    with pytest.raises(UserError, match="is damaged: delete it, and run the command that made this set again"):
        rethreshold(out, workers=0)
    victim.unlink()
    _curate(films, out)
    assert _set(out) == before


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("when", ["clips", "shards"])
@pytest.mark.gate
def test_a_full_disk_stops_the_run_and_loses_nothing(films, tmp_path, monkeypatch, when):
    out = tmp_path / "out"
    _curate(films, out)
    before = _set(out)
    more = dataclasses.replace(films, films=FILMS | {f"{n}": 2 for n in range(9)})
    replace = os.replace

    def full(source, target):
        in_set = "cartoon_clips" in str(target) and when == "shards"
        if in_set or (str(target).endswith(".array_record") and when == "clips"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device.*free some space"):
        _curate(more, out)
    monkeypatch.undo()
    assert _set(out) == before
    assert len(lines_of(films.log)) == (4 if when == "clips" else 12), "sources were read in vain"
    outcome = _curate(more, out)
    assert outcome.reused == (3 if when == "clips" else 12) and len(_ids(out)) == 7 + 9


def test_without_beam_the_extra_is_named_and_the_rest_of_the_package_is_whole():
    program = """
        import sys
        sys.modules["apache_beam"] = None
        import tooncrafter_jax.data.clip_sets, tooncrafter_jax.data.loader
        from tooncrafter_jax.curation.beam_runs import Beam
        from tooncrafter_jax.errors import UserError
        try:
            Beam()
        except UserError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert "pip install 'tooncrafter-jax[data]'" in done.stdout, done.stderr[-2000:]


# --- runs that are killed ---

SLOW_RUN = """
import dataclasses, signal, sys
from pathlib import Path
from tests.curation.fakes import SLOW_FILMS, FakeFingerprint, FakeMotion
from tooncrafter_jax.curation.pipeline import curate

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a background job inherit it ignored
    out, log, seconds, workers = sys.argv[1:]
    films = dataclasses.replace(SLOW_FILMS, log=Path(log), seconds=float(seconds))
    curate(films, [FakeMotion(films.log), FakeFingerprint()], out, workers=int(workers))
"""


def _start(tmp_path: Path, out: str, seconds: float, workers: int) -> subprocess.Popen:
    script = tmp_path / "run.py"
    script.write_text(SLOW_RUN)
    argv = [sys.executable, str(script), str(tmp_path / out), str(tmp_path / f"{out}.log"), str(seconds), str(workers)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)


def _wait_for(log: Path, done: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(lines_of(log)) < done and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.gate
@pytest.mark.parametrize(
    ("kills", "workers"), [((3,), 0), pytest.param((2, 4, 6), 2, marks=pytest.mark.slow)], ids=["once", "three-times"]
)
def test_a_run_that_is_killed_ends_like_one_that_is_not(tmp_path, kills, workers):
    log = tmp_path / "killed.log"
    for done in kills:
        process = _start(tmp_path, "killed", 0.1, workers)
        _wait_for(log, done, process)
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "it was over before it was killed"
        assert not err
        assert not (tmp_path / "killed" / "cartoon_clips").exists()
    films = dataclasses.replace(SLOW_FILMS, log=log)
    outcome = _curate(films, tmp_path / "killed", workers=workers)
    assert outcome.reused >= kills[-1] - workers - 1 and outcome.made >= 1  # the last may not have been written
    times_read = Counter(lines_of(log, "read"))
    assert set(times_read) == set(films.films)
    assert sum(times_read.values()) <= 9 + len(kills) * (workers + 1), "finished films were read again"

    _curate(films, tmp_path / "whole")
    assert _set(tmp_path / "killed") == _set(tmp_path / "whole")
    shards = [
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("cartoon_clips/*/*array_record*")}
        for name in ("killed", "whole")
    ]
    assert shards[0] == shards[1] and len(shards[0]) == 2
    assert not list((tmp_path / "killed" / "workspace").rglob(".tooncrafter-*"))


@pytest.mark.gate
@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_ctrl_c_ends_at_once_and_keeps_what_is_finished(tmp_path, workers):
    process = _start(tmp_path, "out", 0.2, workers)
    _wait_for(tmp_path / "out.log", 2, process)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    finished = [path for path in (tmp_path / "out" / "workspace" / "sources").glob("*.json")]
    assert len(finished) >= 1
    assert all("failure" in path.read_text() and not json.loads(path.read_text())["failure"] for path in finished)


def test_flags_of_another_runner(films, tmp_path):
    """The engine of the DirectRunner stands for another one, which gets the plain functions."""
    engine = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
    outcome = _curate(films, tmp_path / "out", beam_arguments=[f"--runner={engine}"])
    assert outcome.made == 3
    _curate(films, tmp_path / "here")
    assert _set(tmp_path / "out") == _set(tmp_path / "here")
    with pytest.raises(UserError, match="Beam has no such runner"):
        _curate(films, tmp_path / "out", beam_arguments=["--runner=FlonkRunner"])
    with pytest.raises(UserError, match="no model to measure with: give its file$"):
        _curate(films, tmp_path / "new", stages=[Unfinished()], beam_arguments=[f"--runner={engine}"])


def test_workers_by_default_are_as_many_as_cores():
    assert 1 <= pipeline.default_workers() <= (os.cpu_count() or 1)
