"""The database of jobs: one SQLite file, which a killed process leaves whole.

Every change is on the disk when a method returns. Rows are ordered by the number that they get, never by the clock,
which may be set back.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import JsonObject

State = Literal["waiting", "running", "done", "failed", "cancelled"]
"""Of a job."""
OPEN: tuple[State, ...] = ("waiting", "running")
"""States of a job that is still to be made."""
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
"""States of one that is not."""
MIGRATIONS = (
    """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE clients (id TEXT PRIMARY KEY, created REAL NOT NULL);
    CREATE TABLE pictures (
      sha256 TEXT NOT NULL, client TEXT NOT NULL, bytes INTEGER NOT NULL, height INTEGER NOT NULL,
      width INTEGER NOT NULL, created REAL NOT NULL, PRIMARY KEY (sha256, client)
    );
    CREATE TABLE jobs (
      number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, kind TEXT NOT NULL,
      state TEXT NOT NULL, created REAL NOT NULL, finished REAL, body TEXT NOT NULL
    );
    CREATE INDEX jobs_of_client ON jobs (client, number);
    CREATE INDEX jobs_by_state ON jobs (state, number);
    """,
    """
    ALTER TABLE pictures ADD COLUMN alone INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX jobs_by_end ON jobs (finished);
    """,
)
"""How the file comes from each version to the next; `user_version` says how many it has behind it."""
_COLUMNS = ("number", "id", "client", "kind", "state", "created", "finished")


@dataclass(frozen=True)
class Job:
    """A job as it is kept.

    Attributes:
      id: that nobody can guess.
      client: whose it is; a checksum of the client's key.
      request: as it was sent.
      pictures: what the request calls a picture -> checksum of its file.
      kind: "pair" or "shot".
      state: see `State`.
      number: of the order in which jobs came; 0 until it is kept.
      created: seconds since 1970.
      finished: the same; None while it is open.
      attempts: how often it was begun; a server that ends while it draws does not try for ever.
      error: a sentence, of a failed one.
      notes: what was decided about its pictures.
      made_by: what drew it, as in the record of a clip.
      shape: of the frames, (T, H, W, C).
      seconds: that it took.
    """

    id: str
    client: str
    request: JsonObject
    pictures: Mapping[str, str]
    kind: str = "pair"
    state: State = "waiting"
    number: int = 0
    created: float = 0.0
    finished: float | None = None
    attempts: int = 0
    error: str = ""
    notes: Sequence[str] = ()
    made_by: JsonObject = field(default_factory=dict)
    shape: Sequence[int] = ()
    seconds: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it is still to be made."""
        return self.state in OPEN

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Waiting(NamedTuple):
    """What is known of a waiting job without its request, which may be long.

    Attributes:
      number, id, client, kind: as of `Job`.
    """

    number: int
    id: str
    client: str
    kind: str


@dataclass(frozen=True)
class KnownPicture:
    """A picture of a client's.

    Attributes:
      sha256: of the file.
      bytes: of the file.
      height, width: in pixels.
    """

    sha256: str
    bytes: int
    height: int
    width: int


class Database:
    """Clients, pictures and jobs; may be used by several threads.

    Args:
      path: of the file, which is made if it is missing.

    Raises:
      UserError: a newer version wrote it, or it cannot be opened.
      sqlite3.DatabaseError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            self._sql = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                self._open(path)
            except BaseException:
                self._sql.close()
                raise
        except sqlite3.OperationalError as error:  # it is locked, or the disk is full: nothing is wrong with the file
            raise UserError(
                f"'{path}' cannot be opened ({error}): end the program that uses it, make room on the disk, or choose "
                "another --data"
            ) from error

    def _open(self, path: Path) -> None:
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=FULL")
        found = self._sql.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        version = self._sql.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise UserError(f"'{path}' is of a newer version of this program: install that, or choose another --data")
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            self._sql.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;")

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._sql.close()

    # ---------------------------------------------------------------------------------------------------------- clients

    def setting(self, name: str) -> str | None:
        """A value of the server's own."""
        row = self._one("SELECT value FROM settings WHERE name = ?", name)
        return None if row is None else row[0]

    def set_setting(self, name: str, value: str) -> None:
        """Keeps a value of the server's own."""
        self._do("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value)

    def add_client(self, client: str) -> None:
        """Makes a client known."""
        self._do("INSERT OR IGNORE INTO clients VALUES (?, ?)", client, time.time())

    def has_client(self, client: str) -> bool:
        """Whether it is known."""
        return self._one("SELECT 1 FROM clients WHERE id = ?", client) is not None

    def forget_clients(self, before: float | None = None) -> None:
        """Forgets the clients that came before a time and have neither jobs nor pictures; None: all clients."""
        if before is None:
            self._do("DELETE FROM clients")
        else:
            idle = "id NOT IN (SELECT client FROM jobs UNION SELECT client FROM pictures)"
            self._do(f"DELETE FROM clients WHERE created < ? AND {idle}", before)

    # --------------------------------------------------------------------------------------------------------- pictures

    def add_picture(self, client: str, picture: KnownPicture, *, alone: bool) -> None:
        """Makes a picture a client's.

        Args:
          client: whose.
          picture: what is known of it.
          alone: whether it came by itself; one that came with a request goes with its last job.
        """
        row = (picture.sha256, client, picture.bytes, picture.height, picture.width, time.time(), alone)
        self._do(
            "INSERT INTO pictures (sha256, client, bytes, height, width, created, alone) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET created = excluded.created, alone = max(alone, excluded.alone)",
            *row,
        )

    def picture(self, client: str, sha256: str) -> KnownPicture | None:
        """A picture of a client's; None if it has none of this checksum."""
        row = self._one(
            "SELECT sha256, bytes, height, width FROM pictures WHERE sha256 = ? AND client = ?", sha256, client
        )
        return None if row is None else KnownPicture(*row)

    def release_picture(self, client: str, sha256: str) -> None:
        """Has a picture of a client's be as one that came with a request: it goes with its last job."""
        self._do("UPDATE pictures SET alone = 0 WHERE sha256 = ? AND client = ?", sha256, client)

    def picture_bytes(self, client: str) -> int:
        """How much a client's pictures have."""
        row = self._one("SELECT TOTAL(bytes) FROM pictures WHERE client = ?", client)
        return 0 if row is None else int(row[0])

    def forget_pictures(
        self, held: Collection[str] = (), client: str | None = None, before: float | None = None
    ) -> list[str]:
        """Forgets pictures that no job of their client's names; gives those that nobody has any more.

        Args:
          held: checksums of pictures that stay.
          client: whose; None: everybody's.
          before: those that came before this time; None: those that came with a request, whenever.
        """
        own, whose = ("", ()) if client is None else (" AND client = ?", (client,))
        named = f"SELECT picture.value, client FROM jobs, json_each(body, '$.pictures') AS picture WHERE 1{own}"
        old, moment = ("alone = 0", ()) if before is None else ("created < ?", (before,))
        query = f"SELECT sha256, client FROM pictures WHERE {old}{own} AND (sha256, client) NOT IN ({named})"
        with self._lock:
            gone = [row for row in self._all(query, *moment, *whose, *whose) if row[0] not in held]
            for row in gone:
                self._do("DELETE FROM pictures WHERE sha256 = ? AND client = ?", *row)
            found = dict.fromkeys(sha for sha, _ in gone)
            return [sha for sha in found if self._one("SELECT 1 FROM pictures WHERE sha256 = ?", sha) is None]

    # ------------------------------------------------------------------------------------------------------------- jobs

    def add_job(self, job: Job) -> Job:
        """Keeps a new job; gives it with its number."""
        with self._lock:
            columns, body = _split(job)
            del columns["number"]
            if job.number:  # of a database that is built again
                columns["number"] = job.number
            names = ", ".join([*columns, "body"])
            marks = ", ".join("?" * (len(columns) + 1))
            self._do(f"INSERT INTO jobs ({names}) VALUES ({marks})", *columns.values(), body)
            found = self.job(job.id)
            assert found is not None
            return found

    def job(self, id: str) -> Job | None:
        """The job of this id; None if there is none."""
        row = self._one(f"{_SELECT} WHERE id = ?", id)
        return None if row is None else _job(row)

    def jobs(self, *states: State, client: str | None = None, before: int | None = None, most: int = -1) -> list[Job]:
        """Jobs in the order in which they came; with `before`, those with smaller numbers, the last of them first.

        Args:
          *states: those that are wanted; all without.
          client: whose.
          before: a number.
          most: how many at most.
        """
        where, values = ["1"], list[object]()
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if client is not None:
            where.append("client = ?")
            values.append(client)
        if before is not None:
            where.append("number < ?")
            values.append(before)
        order = "number" if before is None else "number DESC"
        query = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
        return [_job(row) for row in self._all(query, *values, most)]

    def waiting(self) -> list[Waiting]:
        """The jobs that wait, in the order in which they came."""
        query = "SELECT number, id, client, kind FROM jobs WHERE state = 'waiting' ORDER BY number"
        return [Waiting(*row) for row in self._all(query)]

    def count(self, *states: State, client: str | None = None) -> int:
        """How many jobs are in one of these states."""
        own = "" if client is None else " AND client = ?"
        values = [*states, *([] if client is None else [client])]
        row = self._one(f"SELECT COUNT(*) FROM jobs WHERE state IN ({', '.join('?' * len(states))}){own}", *values)
        return 0 if row is None else row[0]

    def change(self, id: str, unless: Sequence[State] = (), **changes: Any) -> Job | None:
        """Changes fields of a job.

        Args:
          id: of the job.
          unless: states in which nothing is changed.
          **changes: fields of `Job` -> value.

        Returns:
          The job as it is now; None if there is none any more.
        """
        with self._lock:
            job = self.job(id)
            if job is None or job.state in unless:
                return job
            new = Job(**{one.name: getattr(job, one.name) for one in fields(Job)} | changes)
            columns, body = _split(new)
            sets = ", ".join(f"{name} = ?" for name in columns)
            self._do(f"UPDATE jobs SET {sets}, body = ? WHERE id = ?", *columns.values(), body, id)
            return new

    def remove_job(self, id: str) -> None:
        """Forgets a job."""
        self._do("DELETE FROM jobs WHERE id = ?", id)

    def finished_before(self, moment: float) -> list[str]:
        """The ids of the jobs that ended before a time."""
        return [id for (id,) in self._all("SELECT id FROM jobs WHERE finished < ?", moment)]

    # -------------------------------------------------------------------------------------------------------------- SQL

    def _do(self, query: str, *values: object) -> None:
        with self._told(), self._lock:
            self._sql.execute(query, values)

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._told(), self._lock:
            return self._sql.execute(query, values).fetchone()

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._told(), self._lock:
            return self._sql.execute(query, values).fetchall()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A full disk inside ends in an `OSError`, as everywhere else."""
        try:
            yield
        except sqlite3.OperationalError as error:
            code = errno.ENOSPC if "full" in str(error) else errno.EIO if "disk I/O" in str(error) else None
            if code is not None:
                raise OSError(code, f"the database cannot be written: {error}") from error
            raise


_SELECT = f"SELECT {', '.join(_COLUMNS)}, body FROM jobs"


def _split(job: Job) -> tuple[dict[str, Any], str]:
    """The columns of a job, and all else as JSON."""
    plain = job.plain()
    columns = {name: plain.pop(name) for name in _COLUMNS}
    return columns, json.dumps(plain)


def _job(row: Sequence[Any]) -> Job:
    *columns, body = row
    return Job(**dict(zip(_COLUMNS, columns, strict=True)) | json.loads(body))
