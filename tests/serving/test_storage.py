"""Limits, the database and the files: nothing is lost, and nobody else's is touched."""

from __future__ import annotations

import errno
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.world import picture
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import collected
from tooncrafter_jax.serving.database import MIGRATIONS, Database, Job
from tooncrafter_jax.serving.limits import Rate
from tooncrafter_jax.serving.storage import RESULT_FILES, SPARED_SECONDS, NoRoom, Storage, is_full

ID = "0123456789abcdef" * 2


def job(number: int = 0, **changes: Any) -> Job:
    own: dict[str, Any] = {"id": f"{number:032x}", "client": "me", "request": {"first": "a"}, "pictures": {}}
    return Job(**own | changes)


def sent(storage: Storage, data: bytes, client: str = "me", held: set[str] | None = None) -> str:
    path = storage.incoming()
    path.write_bytes(data)
    return storage.take_picture(path, client, "a", held).sha256


def test_a_rate_is_a_bucket_that_fills() -> None:
    now = 0.0
    rate = Rate(60, lambda: now)
    assert [rate.wait("a") for _ in range(60)] == [0.0] * 60
    assert rate.wait("a") == pytest.approx(1) and rate.wait("b") == 0
    now = 0.75
    assert rate.wait("a") == pytest.approx(0.25)
    now = 1.0
    assert rate.wait("a") == 0 and rate.wait("a") > 0


def test_jobs_come_back_as_they_were(tmp_path: Path) -> None:
    database = Database(tmp_path / "jobs.sqlite")
    first = database.add_job(job(1, notes=["x"], created=5.0))
    database.add_job(job(2, client="you"))
    changed = database.change(first.id, state="done", shape=[5, 64, 64, 3], finished=6.0)
    database.close()
    again = Database(tmp_path / "jobs.sqlite")
    assert again.job(first.id) == changed and again.jobs(client="you")[0].id == job(2).id
    assert again.count("done") == 1 and again.count("waiting", "running", client="me") == 0
    assert again.change(first.id, unless=("done",), state="failed") == changed
    assert [one.number for one in again.jobs(before=9, most=1)] == [2]
    again.close()


def test_order_follows_numbers_where_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "jobs.sqlite")
    for number, moment in enumerate((2e9, 1e9, 1.0)):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        database.add_job(job(number, created=time.time()))
    assert [int(one.id, 16) for one in database.jobs("waiting")] == [0, 1, 2]
    database.close()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    sql = sqlite3.connect(path)
    sql.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    sql.close()
    with pytest.raises(UserError, match="newer version"):
        Storage(tmp_path)
    assert path.exists()


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    with Storage(tmp_path):
        with pytest.raises(UserError, match="another server uses"):
            Storage(tmp_path)
    Storage(tmp_path).close()


@pytest.mark.parametrize("damage", ["rubbish", "zeros", "cut"])
def test_a_damaged_database_is_built_again_from_what_stands_beside_the_jobs(tmp_path: Path, damage: str) -> None:
    with Storage(tmp_path) as storage:
        sha256 = sent(storage, picture())
        for number in (3, 1, 2):
            kept = storage.database.add_job(job(number, pictures={"a": sha256}, state="done", finished=9.0))
            storage.record(kept.id)
        before = storage.database.jobs()
    path = tmp_path / "jobs.sqlite"
    data = path.read_bytes()
    path.write_bytes({"rubbish": b"rubbish" * 999, "zeros": bytes(len(data)), "cut": data[: len(data) // 2]}[damage])
    with collected() as notes, Storage(tmp_path) as storage:
        assert storage.database.jobs() == before
        assert storage.database.has_client("me") and storage.database.picture("me", sha256) is not None
    assert len(notes) == 1 and "the 3 jobs were found again" in notes[0]
    assert len(list(tmp_path.glob("jobs.damaged-*.sqlite"))) == 1  # nothing is thrown away


def test_a_database_that_is_gone_is_built_again(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        storage.record(storage.database.add_job(job(1, state="done", finished=9.0)).id)
        before = storage.database.jobs()
    (tmp_path / "jobs.sqlite").unlink()
    (tmp_path / "jobs.sqlite-wal").write_bytes(b"of the one before")
    (tmp_path / "jobs.sqlite.new").write_bytes(b"of an attempt that was cut short")
    with collected() as notes, Storage(tmp_path) as storage:
        assert storage.database.jobs() == before and "was not there" in notes[0]
    assert not (tmp_path / "jobs.sqlite.new").exists()


def test_a_database_that_cannot_be_used_now_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **settings: connect(*given, **settings | {"timeout": 0}))
    with Storage(tmp_path) as storage:
        storage.database.add_job(job(1))
    other = connect(tmp_path / "jobs.sqlite", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match="end the program that uses it"):
        Storage(tmp_path)
    other.close()
    with Storage(tmp_path) as storage:
        assert len(storage.database.jobs()) == 1 and not list(tmp_path.glob("jobs.damaged*"))


def test_a_database_of_the_version_before_is_brought_to_this_one(tmp_path: Path) -> None:
    sql = sqlite3.connect(tmp_path / "jobs.sqlite")
    sql.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version=1;")
    sql.execute("INSERT INTO pictures VALUES ('a', 'me', 1, 2, 3, 4.0)")
    sql.commit()
    sql.close()
    with Storage(tmp_path) as storage:
        assert storage.database.picture("me", "a") is not None  # nobody knows how it came: it stays


def test_a_system_without_locks_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tooncrafter_jax.io.locks.fcntl", None)
    with pytest.raises(UserError, match="which this system does not have"):
        Storage(tmp_path)


def test_pictures_of_a_request_go_with_its_last_job(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        with storage.holding() as held:
            part, both = sent(storage, picture(1), held=held), sent(storage, picture(2), held=held)
        own, others = sent(storage, picture(3)), sent(storage, picture(2), "you")
        first, second = (
            storage.database.add_job(job(number, pictures={"a": part, "b": both, own: own})) for number in (1, 2)
        )
        storage.remove_job(first)
        assert storage.database.picture("me", part) is not None
        storage.remove_job(second)
        assert storage.database.picture("me", part) is None and not storage.picture(part).exists()
        assert storage.database.picture("me", both) is None and storage.picture(others).exists()  # another's, too
        assert storage.database.picture("me", own) is not None  # which came by itself


def test_pictures_of_a_request_that_comes_in_are_not_removed_with_a_job(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        with storage.holding() as held:
            first = storage.database.add_job(job(1, pictures={"a": sent(storage, picture(), held=held)}))
        with storage.holding() as held:
            sha256 = sent(storage, picture(), held=held)
            storage.remove_job(first)
            assert storage.database.picture("me", sha256) is not None and storage.picture(sha256).exists()
        storage.forget_pictures("me")
        assert not storage.picture(sha256).exists()


def test_a_removal_that_was_cut_short_is_ended_at_the_next_start(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage, storage.holding() as held:
        sha256 = sent(storage, picture(), held=held)
    with Storage(tmp_path) as storage:
        assert not storage.picture(sha256).exists()


def test_a_client_s_pictures_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Storage(tmp_path) as storage:
        needed, idle = sent(storage, picture(1)), sent(storage, picture(2))
        storage.database.add_job(job(1, pictures={"a": needed}))
        storage.check_share("me", 900_000, 1)
        with pytest.raises(UserError, match="remove jobs"):
            storage.check_share("me", 10**6, 1)
        assert storage.picture(idle).exists()  # it came just now
        later = time.time() + 2 * SPARED_SECONDS
        monkeypatch.setattr(time, "time", lambda: later)
        storage.check_share("me", 10**6 - storage.picture(needed).stat().st_size, 1)
        assert storage.picture(needed).exists() and not storage.picture(idle).exists()


def test_a_picture_that_a_client_has_is_not_one_too_many(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        known = sent(storage, picture(1))
        paths = [storage.incoming() for _ in range(2)]
        for number, path in enumerate(paths, 1):
            path.write_bytes(picture(number))
        assert storage.take_picture(paths[0], "me", "a", megabytes=0).sha256 == known
        with pytest.raises(UserError, match="go a day later"):
            storage.take_picture(paths[1], "me", "b", megabytes=0)
        assert not paths[1].exists() and len(list((tmp_path / "pictures").iterdir())) == 1


def test_the_record_of_a_job_that_was_removed_does_not_come_back(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        kept = storage.database.add_job(job(1))
        storage.record(kept.id)
        storage.remove_job(kept)
        storage.record(kept.id)
        with pytest.raises(FileNotFoundError):
            storage.result_file(kept.id, "a.mp4")
        assert not storage.job_folder(kept.id).exists()


def test_temporary_files_are_on_the_folder_s_disk(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        before = tempfile.gettempdir()
        with storage.temporary_files_here():
            assert Path(tempfile.gettempdir()) == tmp_path / "incoming"
        assert tempfile.gettempdir() == before


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/full/frames.npy"), False),
        (OSError("cannot identify image file '/data/full/a.png'"), False),
    ],
)
def test_which_errors_say_that_the_disk_is_full(error: OSError, full: bool) -> None:
    assert is_full(error) == full


def test_pictures_are_kept_once_and_belong_to_who_sent_them(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        assert sent(storage, picture()) == sent(storage, picture(), "you")
        sha256 = sent(storage, picture())
        assert len(list((tmp_path / "pictures").iterdir())) == 1
        assert storage.database.picture("you", sha256) and storage.database.picture("they", sha256) is None
        assert not list((tmp_path / "incoming").iterdir())


@pytest.mark.parametrize("data", [b"", b"no picture", picture()[:99], b"GIF89a", picture(height=4), b"\x89PNG\r\n"])
def test_what_is_no_picture_is_refused_without_a_path(tmp_path: Path, data: bytes) -> None:
    with Storage(tmp_path) as storage:
        with pytest.raises(UserError) as error:
            sent(storage, data)
        assert "'a'" in str(error.value) and str(tmp_path) not in str(error.value)
        assert not list((tmp_path / "incoming").iterdir()) and not list((tmp_path / "pictures").iterdir())


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 32, "0" * 31, "0" * 31 + "/", "0" * 31 + "\0"])
def test_no_other_name_is_a_path(tmp_path: Path, name: str) -> None:
    with Storage(tmp_path) as storage:
        with pytest.raises(ValueError, match="no name of a file"):
            storage.job_folder(name)
        with pytest.raises(ValueError, match="no name of a file"):
            storage.picture(name)


def test_a_disk_that_is_nearly_full_takes_nothing(tmp_path: Path) -> None:
    with Storage(tmp_path, free=lambda: 1000, reserve=900) as storage:
        storage.check_room(100)
        with pytest.raises(NoRoom):
            storage.check_room(101)
        with pytest.raises(NoRoom):
            sent(storage, picture())


def test_what_is_old_is_removed_with_its_pictures(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        shared, alone = sent(storage, picture(1)), sent(storage, picture(2))
        storage.database.add_job(job(1, state="done", finished=10.0, pictures={"a": alone, "b": shared}))
        storage.database.add_job(job(2, state="done", finished=30.0, pictures={"a": shared}))
        storage.database.add_job(job(3, pictures={}))
        storage.write_frames(job(1).id, np.zeros((2, 8, 8, 3), np.uint8))
        assert storage.remove_old(-1e9) == []  # the clock was set back: everything stays
        later = time.time() + 10
        assert storage.remove_old(20.0) == [job(1).id] and storage.picture(alone).exists()  # it was sent just now
        storage.forget_pictures(before=later)
        assert storage.database.picture("me", shared) and storage.database.picture("me", alone) is None
        assert [one.id for one in storage.database.jobs()] == [job(2).id, job(3).id]
        assert not storage.job_folder(job(1).id).exists()


def test_result_files_do_not_pile_up(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        storage.job_folder(ID).mkdir()
        for number in range(RESULT_FILES + 9):
            storage.result_file(ID, f"{number}.mp4").write_bytes(b"x")
        assert len(list(storage.result_file(ID, "x").parent.iterdir())) <= RESULT_FILES


def test_what_is_being_written_beside_a_result_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Storage(tmp_path) as storage:
        storage.job_folder(ID).mkdir()
        folder = storage.result_file(ID, "x").parent
        (folder / ".tooncrafter-0.tmp").symlink_to("gone")  # of another thread, which has renamed it meanwhile
        for number in range(RESULT_FILES):
            (folder / f"{number}.mp4").write_bytes(b"x")
        storage.result_file(ID, "x")
        assert (folder / ".tooncrafter-0.tmp").is_symlink()
