"""Files of results: each is made once, few at a time, and none that does not fit into memory."""

from __future__ import annotations

import asyncio
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.formats import FORMATS
from tooncrafter_jax.io.timesheets import read_timesheet
from tooncrafter_jax.serving import results
from tooncrafter_jax.serving.database import Job
from tooncrafter_jax.serving.results import AT_ONCE, Results
from tooncrafter_jax.serving.storage import Storage


def done(storage: Storage, request: dict[str, Any]) -> Job:
    """A job with five frames."""
    job = storage.database.add_job(Job("0" * 32, "me", request, {}, state="done"))
    storage.record(job.id)
    storage.write_frames(job.id, np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8))
    return job


def test_a_file_is_made_once_and_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []
    running, most, lock = 0, 0, threading.Lock()

    def write(form: object, path: Path, frames: object, fps: float, options: object) -> None:
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
            made.append(fps)
        time.sleep(0.02)
        path.write_bytes(b"x")
        with lock:
            running -= 1

    monkeypatch.setattr(type(FORMATS["apng"]), "write", write)
    with Storage(tmp_path) as storage:
        job = done(storage, {"first": "a", "last": "b"})

        async def ask() -> list[Path]:
            files = Results(storage)
            return await asyncio.gather(*(files.file(job, "apng", 1 + number % 5, "yuv420p") for number in range(20)))

        paths = asyncio.run(ask())
    assert sorted(made) == [1, 2, 3, 4, 5] and most == AT_ONCE and len(set(paths)) == 5


def test_frames_for_the_page_do_not_wait_for_long_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = list[float](), threading.Event()

    def write(form: object, path: Path, frames: object, fps: float, options: object) -> None:
        begun.append(fps)
        assert go.wait(60)
        path.write_bytes(b"x")

    monkeypatch.setattr(type(FORMATS["apng"]), "write", write)
    with Storage(tmp_path) as storage:
        job = done(storage, {"of": "a version to come"})

        async def ask() -> Path:
            files = Results(storage)
            slow = [asyncio.create_task(files.file(job, "apng", fps, "yuv420p")) for fps in range(1, AT_ONCE + 1)]
            while len(begun) < AT_ONCE:
                await asyncio.sleep(0.005)
            try:
                return await asyncio.wait_for(files.file(job, "png", 8, "yuv420p"), 20)
            finally:
                go.set()
                await asyncio.gather(*slow)

        assert len(zipfile.ZipFile(asyncio.run(ask())).namelist()) == 5


@pytest.mark.parametrize("form", results.ANIMATIONS)
def test_an_animation_that_takes_too_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(results, "LARGEST_ANIMATION", 5 * 16 * 16 * 3 - 1)
    with Storage(tmp_path) as storage:
        job = done(storage, {"first": "a", "last": "b"})
        with pytest.raises(UserError, match=f"5 frames of 16 x 16 pixels are too many for {form}"):
            asyncio.run(Results(storage).file(job, form, 8, "yuv420p"))


def test_a_time_sheet_marks_the_keys_of_a_shot(tmp_path: Path) -> None:
    with Storage(tmp_path / "data") as storage:
        job = done(storage, {"keys": {"10": "a", "12": "b", "14": "c"}})
        path = asyncio.run(Results(storage).file(job, "xdts", 24, "yuv420p"))
        zipfile.ZipFile(path).extractall(tmp_path / "zip")
    (sheet,) = (tmp_path / "zip").glob("*.xdts")
    (layer,) = read_timesheet(sheet).layers
    assert [one.frame for one in layer.exposures if one.role == "key"] == [0, 2, 4]
