"""The files of the service, in one folder that one server at a time uses.

    jobs.sqlite             see `database`
    pictures/SHA256         what clients sent, once however often it came
    jobs/ID/job.json        what the database knows of a job, from which a damaged one is built again
    jobs/ID/frames.npy      what was drawn, uint8 (T, H, W, C)
    jobs/ID/clips/          of a shot, what was drawn so far (`sampling.clip_store`)
    jobs/ID/files/          the result in the formats that were asked for
    incoming/               what is on its way

Names are checksums and ids of this program's own: none is a client's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import check_writable, read_picture, write_json
from tooncrafter_jax.io.atomic_files import cannot_write, sync_file, written_whole
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.locks import taken
from tooncrafter_jax.notes import note
from tooncrafter_jax.serving.database import Database, Job, KnownPicture
from tooncrafter_jax.typing import Uint8Clip

_log = logging.getLogger(__name__)
RESULT_FILES = 16
"""Files of one job's result that are kept; they can be made again."""


class NoRoom(UserError):
    """The disk is nearly full."""


class Storage:
    """The folder; may be used by several threads. To be closed, or used by `with`.

    Args:
      folder: is made if it is missing.
      free: how many bytes the folder's disk has room for.
      reserve: bytes of them that are left alone.

    Attributes:
      database: see there.

    Raises:
      UserError: another server uses the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, *, free: Callable[[], int] | None = None, reserve: int = 0) -> None:
        self.folder = folder.absolute()
        self._free = free or (lambda: shutil.disk_usage(self.folder).free)
        self._reserve = reserve
        self._held, self._pictures = contextlib.ExitStack(), threading.Lock()
        check_writable(self.folder)
        try:
            for name in ("pictures", "jobs"):
                (self.folder / name).mkdir(exist_ok=True)
            lock = self.folder / "lock"
            lock.touch()
            if not self._held.enter_context(taken(lock)):
                raise UserError(f"another server uses '{self.folder}': stop it, or choose another --data")
            shutil.rmtree(self.folder / "incoming", ignore_errors=True)  # of a server that was killed
            (self.folder / "incoming").mkdir()
            self.database = self._opened()
        except OSError as error:
            self._held.close()
            raise cannot_write(str(self.folder), error) from error
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Closes the database, and leaves the folder to others."""
        self.database.close()
        self._held.close()

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --------------------------------------------------------------------------------------------------------- database

    def _opened(self) -> Database:
        """The database; a damaged one is moved away, and built again from what stands beside each job."""
        path = self.folder / "jobs.sqlite"
        try:
            return Database(path)
        except sqlite3.DatabaseError as error:
            kept = self.folder / f"jobs.damaged-{secrets.token_hex(4)}.sqlite"
            path.rename(kept)
            for ending in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + ending).rename(kept.with_name(kept.name + ending))
            database, jobs = Database(path), self._recorded()
            for job in sorted(jobs, key=lambda job: job.number):
                database.add_client(job.client)
                database.add_job(job)
                for sha256 in job.pictures.values():
                    with contextlib.suppress(UserError, OSError):
                        database.add_picture(job.client, self._described(self.picture(sha256), sha256))
            note(
                f"'{path}' was damaged ({error}): it is kept as '{kept.name}', and the {len(jobs)} jobs were found "
                "again beside their files"
            )
            return database

    def _recorded(self) -> list[Job]:
        found: list[Job] = []
        for path in (self.folder / "jobs").glob("*/job.json"):
            try:
                job = Job(**read_json(path))
            except (OSError, ValueError, TypeError) as error:
                _log.warning("%s is no record of a job: %s", path, error)
                continue
            if job.id == path.parent.name:
                found.append(job)
        return found

    def record(self, job: Job) -> None:
        """Writes what the database knows of a job beside its files.

        Raises:
          UserError: it cannot be written.
        """
        write_json(self.job_folder(job.id) / "job.json", job.plain())

    # ------------------------------------------------------------------------------------------------------------- room

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        return self._free() - self._reserve

    def check_room(self, size: int = 0) -> None:
        """Raises `NoRoom` where so many bytes more would leave too little."""
        if self.free < size:
            raise NoRoom("the server's disk is nearly full: nothing is lost, so try again once there is room")

    # --------------------------------------------------------------------------------------------------------- pictures

    def incoming(self) -> Path:
        """A file name for something that is on its way."""
        return self.folder / "incoming" / secrets.token_hex(16)

    def picture(self, sha256: str) -> Path:
        """The file of a picture."""
        return self.folder / "pictures" / _checked(sha256, 64)

    def take_picture(self, incoming: Path, client: str, name: str) -> KnownPicture:
        """Reads a file that came, carefully, and keeps it as a client's picture.

        Args:
          incoming: of `incoming`; is gone afterwards.
          client: whose.
          name: what sentences call it.

        Raises:
          UserError: it is no picture that can be drawn from.
          NoRoom: the disk is nearly full.
        """
        try:
            self.check_room(incoming.stat().st_size)
            with incoming.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
            try:
                picture = self._described(incoming, sha256)
            except UserError as error:
                raise UserError(str(error).replace(f"'{incoming}'", f"the picture '{name}'")) from error
            sync_file(str(incoming))
            with self._pictures:
                os.replace(incoming, self.picture(sha256))
                self.database.add_picture(client, picture)
            return picture
        finally:
            incoming.unlink(missing_ok=True)

    def _described(self, path: Path, sha256: str) -> KnownPicture:
        height, width = read_picture(path).shape[:2]
        return KnownPicture(sha256, path.stat().st_size, height, width)

    # ------------------------------------------------------------------------------------------------------------- jobs

    def job_folder(self, id: str) -> Path:
        """Where the files of a job are."""
        return self.folder / "jobs" / _checked(id, 32)

    def write_frames(self, id: str, frames: Uint8Clip) -> None:
        """Writes what was drawn.

        Raises:
          UserError: it cannot be written.
        """
        path = self.job_folder(id) / "frames.npy"
        with written_whole(path) as temporary:
            with open(temporary, "wb") as file:
                np.save(file, frames)
            sync_file(temporary)
        shutil.rmtree(self.job_folder(id) / "clips", ignore_errors=True)

    def frames(self, id: str) -> Uint8Clip:
        """What was drawn, as it lies on the disk.

        Raises:
          OSError: there is nothing.
        """
        return np.load(self.job_folder(id) / "frames.npy", mmap_mode="r")

    def result_file(self, id: str, name: str) -> Path:
        """Where a result of this name is, or goes; the oldest of many others are removed."""
        folder = self.job_folder(id) / "files"
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted((path for path in folder.iterdir() if path.name != name), key=lambda path: path.stat().st_mtime)
        for path in others[: max(0, len(others) - RESULT_FILES + 1)]:
            path.unlink(missing_ok=True)
        return folder / name

    def remove_job(self, id: str) -> None:
        """Removes a job with all its files."""
        self.database.remove_job(id)
        shutil.rmtree(self.job_folder(id), ignore_errors=True)

    def remove_old(self, before: float) -> list[str]:
        """Removes the jobs that ended before a time, and pictures from before it that no job needs; gives the jobs."""
        jobs = [job.id for job in self.database.finished_before(before)]
        for id in jobs:
            self.remove_job(id)
        with self._pictures:
            for sha256 in self.database.unused_pictures(before):
                self.picture(sha256).unlink(missing_ok=True)
        self.database.forget_clients(before)
        return jobs


@contextlib.contextmanager
def room_explained(storage: Storage) -> Iterator[None]:
    """Inside, what fails because the disk is full, or nearly, ends as `NoRoom`.

    Raises:
      NoRoom: so it did.
    """
    try:
        yield
    except NoRoom:
        raise
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and (is_full(cause) or storage.free < 0):
            raise NoRoom(f"the server's disk is full ({cause.strerror or cause}): nothing is lost") from error
        raise


def is_full(error: OSError) -> bool:
    """Whether an error says that the disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "full" in str(error)


def _checked(name: str, digits: int) -> str:
    """A name of this program's own.

    Raises:
      ValueError: it is none.
    """
    if len(name) != digits or not set(name) <= set("0123456789abcdef"):
        raise ValueError(f"no name of a file: {json.dumps(name[:80])}")
    return name
