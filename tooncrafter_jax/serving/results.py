"""What a client gets of a job that is done: its frames in any format, folders of files as zip archives."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from fastapi.concurrency import run_in_threadpool

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import WHITE, over
from tooncrafter_jax.io.atomic_files import sync_file, written_whole
from tooncrafter_jax.io.formats import FORMATS, FormatOptions
from tooncrafter_jax.io.timesheets import TIMESHEETS
from tooncrafter_jax.sampling.batch.shot_jobs import sheet_of_shot
from tooncrafter_jax.sampling.frame_room import FrameRoom
from tooncrafter_jax.serving.database import Job
from tooncrafter_jax.serving.descriptions import ShotDescription, described
from tooncrafter_jax.serving.storage import Storage
from tooncrafter_jax.typing import Uint8Clip

RESULTS = tuple(FORMATS)
"""Names of all formats."""
MEDIA_TYPES = {
    "mp4": "video/mp4",
    "gif": "image/gif",
    "webp": "image/webp",
    "apng": "image/apng",
    "webm": "video/webm",
    "mov": "video/quicktime",
}
"""Of the formats that are one file; the others are zip archives."""
ZIP = "application/zip"
ANIMATIONS = ("gif", "webp", "apng")
"""Formats whose frames are all in memory while they are written, more than once."""
LARGEST_ANIMATION = 2**30
"""Bytes of the frames of one, 2,184 of 512 x 320 pixels."""
AT_ONCE = 2
"""Files that are made at a time; beside them as many of `PLAYED`."""
PLAYED = "png"
"""The format that the page plays, which is made quickly: it does not wait for long videos."""


def media_type(form: str) -> str:
    """What kind of file a result is."""
    return MEDIA_TYPES.get(form, ZIP)


def ending(form: str) -> str:
    """How its name ends, without the dot."""
    return FORMATS[form].endings[0] if form in MEDIA_TYPES else "zip"


class Results:
    """Makes the files of results, each once however many ask for it, and few at a time.

    Args:
      storage: holds the frames.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._making, self._making_played = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def file(self, job: Job, form: str, fps: float, pixel_format: str) -> Path:
        """The file of a result, which is made if it is not there yet.

        Args:
          job: that is done.
          form: of `RESULTS`.
          fps: playback rate.
          pixel_format: of mp4 files.

        Raises:
          UserError: the format cannot hold the frames, or have this rate.
          OSError: there are no frames.
        """
        FORMATS[form].check_playback_rate(fps)
        name = f"{form}-{pixel_format}-{float(fps)!r}.{ending(form)}"
        lock = self._locks.setdefault((job.id, name), asyncio.Lock())
        async with lock:  # who waits here takes no thread from others
            path = await run_in_threadpool(self._storage.result_file, job.id, name)
            if not path.exists():
                async with self._making_played if form == PLAYED else self._making:
                    await run_in_threadpool(self._make, job, path, form, fps, pixel_format)
            return path

    def _make(self, job: Job, path: Path, form: str, fps: float, pixel_format: str) -> None:
        frames = self._storage.frames(job.id)
        if form in ANIMATIONS and frames.nbytes > LARGEST_ANIMATION:
            raise UserError(
                f"{len(frames)} frames of {frames.shape[2]} x {frames.shape[1]} pixels are too many for {form}: ask "
                "for mp4, webm, mov or png"
            )
        self._storage.check_room(frames.nbytes)
        if form in MEDIA_TYPES:
            held = frames if FORMATS[form].has_alpha else _opaque(frames, path.parent)
            FORMATS[form].write(path, held, fps, FormatOptions(pixel_format))
            return
        drawn = None
        if form in TIMESHEETS and isinstance(asked := described(job.request), ShotDescription):
            drawn = partial(sheet_of_shot, frames, sorted(map(int, asked.keys)), "shot")
        with tempfile.TemporaryDirectory(prefix="result-", dir=self._storage.folder / "incoming") as folder:
            made = Path(folder) / "shot"
            FORMATS[form].write(made, frames, fps, FormatOptions(pixel_format, drawn))
            _zip(made, path)


def _opaque(frames: Uint8Clip, folder: Path) -> Uint8Clip:
    if frames.shape[-1] == 3:
        return frames
    shown = FrameRoom(folder)((*frames.shape[:-1], 3))
    for number, frame in enumerate(frames):
        shown[number] = over(frame, WHITE)
    return shown


def _zip(folder: Path, path: Path) -> None:
    """An archive of a folder's files, which are compressed already."""
    with written_whole(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    entry = zipfile.ZipInfo(file.relative_to(folder).as_posix())
                    with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                        shutil.copyfileobj(source, target)
        sync_file(os.fspath(temporary))
