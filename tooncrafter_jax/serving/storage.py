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
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import check_writable, read_picture, write_json
from tooncrafter_jax.io.atomic_files import cannot_write, sync_file, written_whole
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.locks import has_locks, taken
from tooncrafter_jax.notes import note
from tooncrafter_jax.serving.database import Database, Job, KnownPicture
from tooncrafter_jax.typing import Uint8Clip

_log = logging.getLogger(__name__)
RESULT_FILES = 16
"""Files of one job's result that are kept; they can be made again."""
SPARED_SECONDS = 86400.0
"""A picture that no job needs, of a client that has too many, is removed when it is so old: it may still be wanted."""
_BESIDE = ("-wal", "-shm")
"""How the files end that SQLite has beside a database."""


class NoRoom(UserError):
    """The disk is nearly full."""

    def __init__(self) -> None:
        super().__init__("the server's disk is nearly full: nothing is lost, so try again once there is room")


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
        self._held, self._pictures, self._records = contextlib.ExitStack(), threading.Lock(), threading.Lock()
        self._in_hand: list[set[str]] = []
        if not has_locks():
            raise UserError(
                "the server needs locks of files, which this system does not have: run it on Linux or macOS"
            )
        check_writable(self.folder)
        try:
            for name in ("pictures", "jobs"):
                (self.folder / name).mkdir(exist_ok=True)
            lock = self.folder / "lock"
            lock.touch()
            if not self._held.enter_context(taken(lock)):
                raise UserError(
                    f"another server uses '{self.folder}', or its file system has no locks: stop that server, or "
                    "choose another --data"
                )
            shutil.rmtree(self.folder / "incoming", ignore_errors=True)  # of a server that was killed
            (self.folder / "incoming").mkdir()
            self.database = self._opened()
            with contextlib.suppress(OSError):
                self.forget_pictures()  # of jobs whose removal was cut short
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
        """The database; one that is damaged or gone is built again from what stands beside each job."""
        path = self.folder / "jobs.sqlite"
        if not path.exists() and any((self.folder / "jobs").glob("*/job.json")):
            return self._rebuilt(path, "was not there")
        try:
            return Database(path)
        except sqlite3.DatabaseError as error:
            return self._rebuilt(path, f"was damaged ({error})")

    def _rebuilt(self, path: Path, what: str) -> Database:
        """A new database in the place of the old one, which is kept; wherever this is cut short, it begins again."""
        new = path.with_name("jobs.sqlite.new")
        for ending in ("", *_BESIDE):
            path.with_name(new.name + ending).unlink(missing_ok=True)
        jobs = sorted(self._recorded(), key=lambda job: job.number)
        with contextlib.closing(Database(new)) as database:
            for job in jobs:
                database.add_client(job.client)
                database.add_job(job)
                for name, sha256 in job.pictures.items():
                    with contextlib.suppress(UserError, OSError):
                        picture = self._described(self.picture(sha256), sha256)
                        database.add_picture(job.client, picture, alone=name == sha256)
        kept = self.folder / f"jobs.damaged-{secrets.token_hex(4)}.sqlite"
        for ending in ("", *_BESIDE):  # the new database must not find what was beside the old one
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + ending).rename(kept.with_name(kept.name + ending))
        os.replace(new, path)
        saved = f"it is kept as '{kept.name}', and " if kept.exists() else ""
        note(f"'{path}' {what}: {saved}the {len(jobs)} jobs were found again beside their files")
        return Database(path)

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

    def record(self, id: str) -> None:
        """Writes what the database knows of a job beside its files; of a job that was removed, nothing.

        Raises:
          UserError: it cannot be written.
        """
        with self._records:
            job = self.database.job(id)
            if job is not None:
                write_json(self.job_folder(id) / "job.json", job.plain())

    # ------------------------------------------------------------------------------------------------------------- room

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        return self._free() - self._reserve

    def check_room(self, size: int = 0) -> None:
        """Raises `NoRoom` where so many bytes more would leave too little."""
        if self.free < size:
            raise NoRoom

    @contextlib.contextmanager
    def temporary_files_here(self) -> Iterator[None]:
        """Inside, temporary files of this process, such as parts of forms, are on the folder's disk, whose room is
        looked after.
        """
        before = tempfile.tempdir
        tempfile.tempdir = str(self.folder / "incoming")
        try:
            yield
        finally:
            tempfile.tempdir = before

    # --------------------------------------------------------------------------------------------------------- pictures

    def incoming(self) -> Path:
        """A file name for something that is on its way."""
        return self.folder / "incoming" / secrets.token_hex(16)

    def picture(self, sha256: str) -> Path:
        """The file of a picture."""
        return self.folder / "pictures" / _checked(sha256, 64)

    @contextlib.contextmanager
    def holding(self) -> Iterator[set[str]]:
        """Inside, pictures are not removed whose checksums are in the set that this gives; see `hold`."""
        held = set[str]()
        self._in_hand.append(held)
        try:
            yield held
        finally:
            self._in_hand[:] = [one for one in self._in_hand if one is not held]

    def hold(self, held: set[str], sha256: str) -> None:
        """Has a picture stay, whatever is removed meanwhile."""
        with self._pictures:
            held.add(sha256)

    def take_picture(
        self, incoming: Path, client: str, name: str, held: set[str] | None = None, megabytes: int | None = None
    ) -> KnownPicture:
        """Reads a file that came, carefully, and keeps it as a client's picture.

        Args:
          incoming: of `incoming`; is gone afterwards.
          client: whose.
          name: what sentences call it.
          held: of the request that the picture came with, and goes with; None: it came by itself.
          megabytes: that the client's pictures may have; one that it has already adds nothing. None: any number.

        Raises:
          UserError: it is no picture that can be drawn from, or the client has too many.
          NoRoom: the disk is nearly full.
        """
        try:
            self.check_room(incoming.stat().st_size)
            with incoming.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
            if megabytes is not None and self.database.picture(client, sha256) is None:
                self.check_share(client, incoming.stat().st_size, megabytes)
            try:
                picture = self._described(incoming, sha256)
            except UserError as error:
                raise UserError(str(error).replace(f"'{incoming}'", f"the picture '{name}'")) from error
            sync_file(str(incoming))
            with self._pictures:
                if held is not None:
                    held.add(sha256)
                os.replace(incoming, self.picture(sha256))
                self.database.add_picture(client, picture, alone=held is None)
            return picture
        finally:
            incoming.unlink(missing_ok=True)

    def forget_pictures(self, client: str | None = None, before: float | None = None) -> None:
        """Removes pictures that no job needs.

        Args:
          client: whose; None: everybody's.
          before: those that came before this time; None: those that came with a request, whenever.
        """
        with self._pictures:
            held = set[str]().union(*self._in_hand)
            for sha256 in self.database.forget_pictures(held, client, before):
                self.picture(sha256).unlink(missing_ok=True)

    def release_picture(self, client: str, sha256: str) -> None:
        """Removes a picture of a client's; one that a job needs goes with the last of them."""
        self.database.release_picture(client, sha256)
        self.forget_pictures(client)

    def check_share(self, client: str, size: int, megabytes: int) -> None:
        """Raises `UserError` where so many bytes more are too many for a client; first removes what it does not need.

        Args:
          client: whose pictures.
          size: of what comes.
          megabytes: that its pictures may have.
        """
        most = megabytes * 10**6 - size
        if self.database.picture_bytes(client) <= most:
            return
        self.forget_pictures(client, time.time() - SPARED_SECONDS)
        if self.database.picture_bytes(client) > most:
            raise UserError(
                f"your pictures have more than {megabytes} MB, which is as much as this server keeps of a client: "
                "remove jobs that you no longer need; pictures that were sent by themselves go a day later"
            )

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
        """Where a result of this name is, or goes; the oldest of many others are removed.

        Raises:
          FileNotFoundError: the job was removed.
        """
        folder = self.job_folder(id) / "files"
        folder.mkdir(exist_ok=True)
        whole = [path for path in folder.iterdir() if path.name != name and not path.name.startswith(".")]
        others = sorted(whole, key=_moment)
        for path in others[: max(0, len(others) - RESULT_FILES + 1)]:
            path.unlink(missing_ok=True)
        return folder / name

    def remove_job(self, job: Job) -> None:
        """Removes a job with all its files, and the pictures that came with it alone."""
        self.database.remove_job(job.id)
        with self._records:
            shutil.rmtree(self.job_folder(job.id), ignore_errors=True)
        self.forget_pictures(job.client)

    def remove_old(self, before: float) -> list[str]:
        """Removes the jobs that ended before a time, and pictures from before it that no job needs; gives the jobs."""
        jobs = self.database.finished_before(before)
        for id in jobs:
            if (job := self.database.job(id)) is not None:
                self.remove_job(job)
        self.forget_pictures(before=before)
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
            raise NoRoom from error
        raise


def is_full(error: OSError) -> bool:
    """Whether an error says that the disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _moment(path: Path) -> float:
    """When a file was written; 0 if it has just been removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _checked(name: str, digits: int) -> str:
    """A name of this program's own.

    Raises:
      ValueError: it is none.
    """
    if len(name) != digits or not set(name) <= set("0123456789abcdef"):
        raise ValueError(f"no name of a file: {json.dumps(name[:80])}")
    return name
