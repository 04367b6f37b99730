"""What may happen to a server: nothing that was asked for is lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tests.serving.world import PAIR, FakeModel, Held, Process, pair, serving, shot, until
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.serving import engine
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.database import Job
from tooncrafter_jax.serving.engine import ALONE, MOST_ATTEMPTS
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.storage import Storage


@pytest.mark.gate
def test_a_killed_server_goes_on_where_it_was(tmp_path: Path) -> None:
    request, pictures = shot(4)
    with Process(tmp_path, 0.12) as first:
        client = Client(first.url)
        done = client.wait(client.submit(pair(1), PAIR)["id"])
        long = client.submit(request, pictures)["id"]
        clips = tmp_path / "jobs" / long / "clips"
        until(lambda: len(list(clips.glob("*.npy"))) >= 2)
        rest = [client.submit(pair(seed), PAIR)["id"] for seed in (2, 3)]
        kept = {path.name: path.stat().st_mtime_ns for path in clips.glob("*.npy")}
        first.kill()
    with Process(tmp_path, 0.0) as second:
        again = Client(second.url, key=client.key)
        assert again.frames(done["id"]).shape == (5, 64, 64, 3)
        for id in rest:
            assert again.wait(id)["state"] == "done"
        assert again.wait(long)["shape"][0] == 17 and len(kept) >= 2
    with serving(tmp_path / "new") as server:  # what was never stopped looks the same
        other = server.client()
        uninterrupted = other.frames(other.wait(other.submit(request, pictures)["id"])["id"])
    with serving(tmp_path) as server:
        assert (server.client(key=client.key).frames(long) == uninterrupted).all()


def test_clips_of_a_shot_that_were_drawn_are_not_drawn_again(tmp_path: Path) -> None:
    model = FakeModel()

    def slow_down(seeds: Sequence[int]) -> None:
        model.seconds = 1.0 if len(model.batches) == 2 else 0.0

    model.before = slow_down
    request, pictures = shot(4)
    with serving(tmp_path, model) as server:
        client = server.client()
        id = client.submit(request, pictures)["id"]
        until(lambda: len(model.batches) == 3)  # the third is being drawn
    before = len(model.batches)
    with serving(tmp_path, model) as server:
        assert server.client(key=client.key).wait(id)["state"] == "done"
    assert len(model.batches) - before == 2


def test_a_job_that_ends_the_server_each_time_is_given_up(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        for number, attempts in ((1, MOST_ATTEMPTS), (2, MOST_ATTEMPTS - 1)):
            sent = {name: storage.incoming() for name in PAIR}
            for name, path in sent.items():
                path.write_bytes(PAIR[name])
            pictures = {name: storage.take_picture(path, "me", name).sha256 for name, path in sent.items()}
            storage.database.add_job(Job(f"{number:032x}", "me", pair(), pictures, state="running", attempts=attempts))
    with serving(tmp_path) as server:
        database = server.engine.storage.database
        given_up, again = (until(lambda n=n: (j := database.job(f"{n:032x}")) and not j.is_open and j) for n in (1, 2))
        assert given_up.state == "failed" and "the server ended 3 times" in given_up.error
        assert again.state == "done"


def test_a_client_that_goes_while_it_listens_costs_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, FakeModel(seconds=0.1, chunks=300)) as server:
        client = server.client()
        id = client.submit(pair(), PAIR)["id"]
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as gone:
                head = f"GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}"
                gone.sendall(f"{head}\r\n\r\n".encode())
                assert b"200" in gone.recv(100)
        until(lambda: not server.engine.board.has_listeners(id))
        assert client.job(id)["state"] == "running"
        client.cancel(id)


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as server:
        client = server.client()
        first = client.submit(pair(1), PAIR)["id"]
        assert client.wait(first)["state"] == "done"
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 10 * 365 * 86400)
        second = client.submit(pair(2), PAIR)["id"]
        assert client.wait(second)["state"] == "done"
        assert server.engine.storage.remove_old(time.time() - 86400) == []
        listed = server.ask("GET", "/v1/jobs", client.key).json["jobs"]
        assert [job["id"] for job in listed] == [second, first]


def test_a_job_whose_frames_were_written_is_done_without_drawing_again(tmp_path: Path) -> None:
    model = FakeModel()
    with serving(tmp_path, model) as server:
        client = server.client()
        id = client.submit(pair(), PAIR)["id"]
        client.wait(id)
        server.engine.storage.database.change(id, state="running", finished=None)  # killed before it could say so
    with serving(tmp_path, model) as server:
        assert server.client(key=client.key).wait(id)["state"] == "done"
    assert len(model.batches) == 1


def test_records_beside_jobs_tell_what_the_database_does(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        client = server.client()
        job = client.wait(client.submit(pair(), PAIR)["id"])
        record = json.loads((tmp_path / "jobs" / job["id"] / "job.json").read_text())
        known = server.engine.storage.database.job(job["id"])
        assert known is not None and record == json.loads(json.dumps(known.plain()))


def test_clients_take_turns_and_sizes_share_batches(tmp_path: Path) -> None:
    """A client of many jobs does not keep another waiting, nor a long shot a short clip."""
    held = Held()
    model = held.model
    request, pictures = shot(8)
    with serving(tmp_path, model, batch_size=2, gathering_seconds=0.05) as server:
        busy, short = server.client(), server.client()
        long = busy.submit(request, pictures)["id"]
        jobs = [busy.submit(pair(100 + seed), PAIR)["id"] for seed in range(3)]
        own = short.submit(pair(7), PAIR)["id"]
        jobs += [busy.submit(pair(200 + seed), PAIR)["id"] for seed in range(6)]
        until(lambda: short.job(own)["state"] == "running")
        held.let_go()
        assert short.wait(own)["state"] == "done"
        for id in (long, *jobs):
            assert busy.wait(id)["state"] == "done"
    order = [seed for batch in model.batches for seed in batch]
    assert order.index(7) < len(order) - 4
    assert max(map(len, model.batches)) == 2


def test_a_client_that_goes_in_the_middle_of_an_upload_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        client = server.client()
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}\r\n"
        head += "Content-Type: multipart/form-data; boundary=y\r\nContent-Length: 999999\r\n\r\n"
        part = b'--y\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as gone:
                gone.sendall(head.encode() + part + bytes(10**5))
        assert client.wait(client.submit(pair(), PAIR)["id"])["state"] == "done"
        assert len(server.ask("GET", "/v1/jobs", client.key).json["jobs"]) == 1
        assert not list((tmp_path / "incoming").iterdir()) and len(list((tmp_path / "pictures").iterdir())) == 2


def test_frames_that_the_disk_has_no_room_for_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = np.save, list[Path]()

    def save(file: BinaryIO, array: np.ndarray) -> None:
        if not refused:
            refused.append(Path(file.name))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, array)

    monkeypatch.setattr(np, "save", save)
    with serving(tmp_path) as server:
        client = server.client()
        job = client.wait(client.submit(pair(), PAIR)["id"])
        known = server.engine.storage.database.job(job["id"])
        assert refused and known is not None and known.attempts == 1 and not refused[0].exists()
        assert len(client.frames(job["id"])) == 5


def test_a_database_that_the_disk_has_no_room_for_takes_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, opened = sqlite3.connect, list[sqlite3.Connection]()

    def kept(*given: Any, **settings: Any) -> sqlite3.Connection:
        opened.append(connect(*given, **settings))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)
    with serving(tmp_path) as server:
        client = server.client()
        first = client.wait(client.submit(pair(1), PAIR)["id"])["id"]
        opened[0].execute("PRAGMA max_page_count=1")  # no page more than there are
        with pytest.raises(UserError, match="nearly full"):
            client.submit(pair(2, prompt="walks " * 9000), PAIR)
        assert client.job(first)["state"] == "done" and len(list((tmp_path / "jobs").iterdir())) == 1
        opened[0].execute("PRAGMA max_page_count=1000000")
        assert client.wait(client.submit(pair(2, prompt="walks " * 9000), PAIR)["id"])["state"] == "done"


def were_running(folder: Path, attempts: int, **changes: Any) -> list[str]:
    """The ids of three jobs that a server was drawing when it ended."""
    ids = [f"{number:032x}" for number in range(3)]
    with Storage(folder) as storage:
        for number, id in enumerate(ids):
            pictures = {}
            for name, data in PAIR.items():
                path = storage.incoming()
                path.write_bytes(data)
                pictures[name] = storage.take_picture(path, "me", name).sha256
            request = pair(number, **changes)
            storage.database.add_job(Job(id, "me", request, pictures, state="running", attempts=attempts))
    return ids


def test_what_ran_when_a_server_ended_runs_alone(tmp_path: Path) -> None:
    ids, model = were_running(tmp_path, 1), FakeModel()
    with serving(tmp_path, model, batch_size=4, gathering_seconds=0.2) as server:
        database = server.engine.storage.database
        until(lambda: database.count("done") == len(ids))
    assert model.batches == [[0], [1], [2]]


def test_what_ran_beside_the_job_that_is_to_blame_goes_on(tmp_path: Path) -> None:
    ids = were_running(tmp_path, MOST_ATTEMPTS)
    with Storage(tmp_path) as storage:
        storage.database.set_setting(ALONE, ids[1])
    with serving(tmp_path) as server:
        database = server.engine.storage.database
        until(lambda: not database.count("waiting", "running"))
        states = [job.state for job in database.jobs()]
        assert states == ["done", "failed", "done"] and not database.setting(ALONE)


def test_what_ran_when_a_server_ended_and_has_no_room_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOOK_SECONDS", 0.02)
    ids = were_running(tmp_path, 1, options={"height": 256, "width": 256})
    with serving(tmp_path, free=lambda: 500_000) as server:
        client, database = server.client(), server.engine.storage.database
        id = client.submit(pair(7), PAIR)["id"]
        until(lambda: client.job(id)["state"] == "done")
        assert database.count("waiting", "running") == len(ids) and not database.setting(ALONE)


def test_files_that_cannot_be_removed_keep_no_job_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(job: Job) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    held = Held()
    with serving(tmp_path, held.model) as server:
        client = server.client()
        id = client.submit(pair(), PAIR)["id"]
        until(lambda: client.job(id)["state"] == "running" and server.engine.board.live(id))
        monkeypatch.setattr(server.engine.storage, "remove_job", refuse)
        server.engine.storage.database.remove_job(id)
        held.let_go()
        until(lambda: server.engine.board.live(id) is None)
        assert client.wait(client.submit(pair(2), PAIR)["id"])["state"] == "done"


@pytest.mark.gate
@pytest.mark.parametrize("declared", [True, False])
def test_two_gigabytes_are_refused_and_kept_nowhere(tmp_path: Path, declared: bool) -> None:
    sent, chunk = 0, bytes(10**6)

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--y\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
        for _ in range(2000):
            sent += 1
            yield chunk

    headers = {"Content-Type": "multipart/form-data; boundary=y"}
    headers |= {"Content-Length": str(2 * 10**9)} if declared else {}  # then it is sent in chunks
    with serving(tmp_path, limits=Limits(free_megabytes=0, upload_megabytes=4)) as server:
        client = server.client()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = server.ask("POST", "/v1/jobs", client.key, body(), headers)
        assert answer.status == 413 and "more than 4 MB" in answer.json["detail"] and sent > 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB; what comes is not kept
        assert not list((tmp_path / "incoming").iterdir())
        assert client.wait(client.submit(pair(), PAIR)["id"])["state"] == "done"
