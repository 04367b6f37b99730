"""Two runs of one list into one folder share the work, and a run that is killed keeps nothing from the next."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import World, write_folder
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.claims import Claims

REPOSITORY = Path(__file__).parents[2]

RUN = """
import sys, time
import pytest
from tests.cli.world import FakeModel
from tooncrafter_jax.cli.common import run
from tooncrafter_jax.cli.sample import main
seconds = float(sys.argv.pop(1))
model = FakeModel(before=lambda number: time.sleep(seconds))
model.install(pytest.MonkeyPatch())
sys.exit(run(main))
"""


def claims(directory: Path) -> Claims:
    def refuse(sentence: str) -> None:
        pytest.fail(sentence)

    return Claims(directory, refuse)


def test_a_claim_is_one_runs_alone_until_it_is_given_back(tmp_path: Path):
    with claims(tmp_path) as first, claims(tmp_path) as second:
        assert first.take("a") and first.take("a")
        assert not second.take("a")
        assert second.take("b")
        first.release("a")
        first.release("a")
        assert second.take("a") and not first.take("a")
    assert not list(tmp_path.iterdir())


def test_a_claim_of_a_name_that_no_file_can_have(tmp_path: Path):
    with claims(tmp_path) as first, claims(tmp_path) as second:
        for name in ("x" * 255, "é" * 127, os.fsdecode(b"caf\xe9")):
            assert first.take(name) and not second.take(name)


def test_what_a_killed_run_left_is_removed_and_what_another_holds_is_not(tmp_path: Path):
    (tmp_path / f".tooncrafter-{'0' * 32}.claim").touch()
    (tmp_path / ".mine.claim").touch()
    with claims(tmp_path) as first:
        first.take("a")
        with claims(tmp_path) as second:
            assert not second.take("a")
            assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == [".mine.claim"]


def test_the_only_clip_is_asked_for_again_where_another_run_looks_at_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, looks = fcntl.flock, []

    def busy_at_first(descriptor: int, operation: int) -> None:
        looks.append(operation)
        if len(looks) == 1:
            raise OSError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        real(descriptor, operation)

    with claims(tmp_path) as own:
        monkeypatch.setattr(fcntl, "flock", busy_at_first)
        assert own.take("a", again=True) and len(looks) == 2
        looks.clear()
        assert not own.take("b"), "a list goes on with its other clips"


def test_only_the_main_process_looks_for_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (left := tmp_path / f".tooncrafter-{'0' * 32}.claim").touch()
    monkeypatch.setattr("tooncrafter_jax.sampling.batch.claims.is_main_process", lambda: False)
    with claims(tmp_path):
        assert left.exists()


def of_another_user(left: Path, monkeypatch: pytest.MonkeyPatch, *, readable: bool) -> None:
    """Plays the permissions of a file, which do not hinder root."""
    real = os.open

    def refusing(path: Any, flags: int, *mode: int) -> int:
        if Path(path) == left and left.exists() and (flags & os.O_RDWR or not readable):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)


def test_what_another_user_left_is_removed_and_what_another_user_holds_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with claims(tmp_path) as first:
        first.take("a")
        (left,) = tmp_path.iterdir()
        of_another_user(left, monkeypatch, readable=True)
        with claims(tmp_path) as second:
            assert left.exists() and second.take("b") and not second.take("a")
    left.touch()
    with claims(tmp_path) as third:
        assert not left.exists() and third.take("a")


def test_what_another_user_left_and_nobody_may_read_is_in_the_way_of_its_own_clip_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with claims(tmp_path) as first:
        first.take("a")
        (left,) = tmp_path.iterdir()
        of_another_user(left, monkeypatch, readable=False)
        (tmp_path / f".tooncrafter-{'f' * 32}.claim").touch()
        with claims(tmp_path) as second:
            assert list(tmp_path.iterdir()) == [left] and second.take("b")
            with pytest.raises(UserError, match=re.escape(str(left))):
                second.take("a")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_there_are_no_locks_it_is_said_once(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    with Claims(tmp_path, said.append) as first, Claims(tmp_path, lambda sentence: None) as second:
        assert all(claimed.take(name) for name in "ab" for claimed in (first, second))
    assert len(said) == 1 and str(tmp_path) in said[0] and os.strerror(code) in said[0]
    assert not list(tmp_path.iterdir())


def begin(world: World, seconds: float, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(seconds), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"},
    )


def wait_for(path: Path, *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        assert any(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.05)


@pytest.mark.gate
def test_two_runs_of_one_list_share_it_and_go_on_where_one_is_killed(world: World):
    for path in world.out.iterdir():
        path.unlink()
    argv = world.folder(write_folder(world.path / "folder", 20))
    first, second = (begin(world, 0.5, *argv) for _ in range(2))
    wait_for(world.out / "5_a.json", first, second)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert len(list(world.out.glob("*.mp4"))) == len(list(world.out.glob("*.json"))) == 20
    counts = {
        what: int(number)
        for number, what in re.findall(r"(\d+) (made by another run|made|done before|failed|left)", out)
    }
    assert sum(counts.values()) == 20 and counts["failed"] == 0 and "left" not in counts, out
    assert 0 < counts["made"] < 20, "the runs did not share the work"
    assert not list(world.out.glob(".*.claim"))
