"""A client of the service, which needs nothing but this package.

client = Client("http://127.0.0.1:8512")
job = client.submit({"first": "a", "last": "b", "prompt": "walking man"}, {"a": "a.png", "b": "b.png"})
client.wait(job["id"])
Path("ab.mp4").write_bytes(client.result(job["id"], "mp4"))
frames = client.frames(job["id"])          # uint8 (T, H, W, 3)
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from PIL import Image

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.sampling.frame_room import Room, memory
from tooncrafter_jax.serving.comfyui_node import LATER, key_problem, seconds_of, url_problem
from tooncrafter_jax.typing import JsonObject, Uint8Clip

Upload = str | os.PathLike[str] | bytes
"""A picture's path, or the bytes of its file."""


class Unreachable(UserError):
    """The server is not there, or not now."""


class Client:
    """Draws with a server.

    Args:
      url: of the server, such as "http://127.0.0.1:8512".
      key: of a client that the server knows; without, it makes a new one.
      token: the server's, where it needs one for that.
      timeout: seconds that an answer may take to begin.
      patience: seconds in which a server that is busy is asked again.

    Attributes:
      key: of this client: whoever has it has its jobs.

    Raises:
      UserError: the server cannot be reached, or refuses.
    """

    def __init__(
        self, url: str, *, key: str = "", token: str = "", timeout: float = 120.0, patience: float = 3600.0
    ) -> None:
        self.key = (key or token).strip()
        if (problem := url_problem(printable(url, 100)) or key_problem(self.key)) is not None:
            raise UserError(problem)
        self._url, self._parts, self._timeout, self._patience = url.rstrip("/"), urlsplit(url), timeout, patience
        if not key:
            self.key = self._read("POST", "/v1/session", "key")

    def models(self) -> list[dict[str, Any]]:
        """The server's models; the first one counts where a request names none."""
        return self._read("GET", "/v1/models", "models")

    def submit(self, request: JsonObject, pictures: Mapping[str, Upload]) -> dict[str, Any]:
        """Asks for a pair or a shot.

        Args:
          request: as `/v1/jobs` takes it.
          pictures: what it calls a picture -> the picture.

        Raises:
          UserError: the server refuses it, or a picture cannot be read.
        """
        parts = [('name="request"', json.dumps(request).encode())]
        parts += [(f'name="{name}"; filename="{name}"', _data(picture)) for name, picture in pictures.items()]
        return self._json("POST", "/v1/jobs", *_form(parts))

    def send(self, picture: Upload) -> str:
        """Sends a picture that requests will name by its checksum, which this gives; it stays until `let_go`.

        Raises:
          UserError: the server refuses it, or it cannot be read.
        """
        return self._json("POST", "/v1/pictures", *_form([('name="picture"; filename="picture"', _data(picture))]))[
            "sha256"
        ]

    def let_go(self, sha256: str) -> None:
        """Removes a picture that was sent by itself; one that a job needs goes with the last of them."""
        self._open("DELETE", f"/v1/pictures/{sha256}").close()

    def job(self, id: str) -> dict[str, Any]:
        """What is known of a job."""
        return self._json("GET", f"/v1/jobs/{id}")

    def events(self, id: str, previews: bool = True) -> Iterator[dict[str, Any]]:
        """What is known of a job, whenever it changes, until it ends; a lost connection is made again.

        Args:
          id: of the job.
          previews: whether the server makes previews meanwhile, which takes its devices' time.

        Raises:
          UserError: nothing more is heard of it.
        """
        query = "" if previews else "?previews=false"
        until = time.monotonic() + self._patience
        while True:
            job: dict[str, Any] = {"state": "waiting"}
            try:
                job = self.job(id)
                with self._open("GET", f"/v1/jobs/{id}/events{query}") as answer:
                    for line in answer:
                        if line.startswith(b"data: "):
                            until, job = time.monotonic() + self._patience, json.loads(line[6:])
                            if "state" in job:
                                yield job
            except (OSError, HTTPException, ValueError, Unreachable):
                pass
            if job.get("state") not in ("waiting", "running"):
                return
            if time.monotonic() > until:
                raise UserError(f"{self._url} no longer says what becomes of the job: is the server still there?")
            time.sleep(0.5)

    def wait(
        self, id: str, on_change: Callable[[dict[str, Any]], None] = lambda job: None, previews: bool = True
    ) -> dict[str, Any]:
        """Waits until a job is done; gives what is known of it.

        Args:
          id: of the job.
          on_change: is called with what is known of it whenever that changes.
          previews: as of `events`.

        Raises:
          UserError: it failed, or was cancelled.
        """
        for job in self.events(id, previews):
            on_change(job)
        job = self.job(id)
        if job["state"] != "done":
            raise UserError(job["error"] or f"the job was {job['state']}")
        return job

    def result(self, id: str, form: str = "mp4", **settings: object) -> bytes:
        """The file of a job that is done: a video, or a zip archive of png, or of a time sheet, xdts, oca or csv."""
        with self._open("GET", f"/v1/jobs/{id}/result/{form}?{urlencode(settings)}") as answer:
            return answer.read()

    def frames(self, id: str, room: Room = memory) -> Uint8Clip:
        """The frames of a job that is done, uint8 (T, H, W, 3), or 4 with opacity; nothing is lost.

        Args:
          id: of the job.
          room: where they lie.
        """
        with zipfile.ZipFile(io.BytesIO(self.result(id, "png"))) as archive:
            names = sorted(archive.namelist())
            frames = room((len(names), *np.asarray(Image.open(archive.open(names[0]))).shape))
            for frame, name in zip(frames, names, strict=True):
                frame[:] = np.asarray(Image.open(archive.open(name)))
        return frames

    def cancel(self, id: str) -> dict[str, Any]:
        """Cancels a job; gives what is known of it."""
        return self._json("POST", f"/v1/jobs/{id}/cancel")

    def remove(self, id: str) -> None:
        """Removes a job with its frames."""
        self._open("DELETE", f"/v1/jobs/{id}").close()

    def _json(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        with self._open(method, path, body, kind) as answer:
            try:
                return json.load(answer)
            except ValueError as error:
                raise self._stranger() from error

    def _read(self, method: str, path: str, name: str) -> Any:
        """What an answer has under a name."""
        try:
            return self._json(method, path)[name]
        except (LookupError, TypeError) as error:
            raise self._stranger() from error

    def _stranger(self) -> UserError:
        return UserError(f"{self._url} is no server of tooncrafter-jax: check its address")

    def _open(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> HTTPResponse:
        until = time.monotonic() + self._patience
        headers = {"Connection": "close"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        headers |= {"Content-Type": kind} if kind else {}
        while True:
            kind_of = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
            connection = kind_of(self._parts.netloc, timeout=self._timeout)  # whose form `url_problem` has looked at
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answers before it has all
                    connection.request(method, self._parts.path.rstrip("/") + path, body, headers)
                answer = connection.getresponse()
            except (OSError, HTTPException, ValueError) as error:  # ValueError: of a name or path that cannot be sent
                connection.close()
                raise Unreachable(f"{self._url} cannot be reached ({error}): check --server") from error
            if answer.status < 400:
                return answer
            seconds = seconds_of(answer.headers.get("Retry-After"))
            with answer:
                if answer.status not in LATER or time.monotonic() + seconds > until:
                    raise UserError(f"{self._url} refuses: {_detail(answer)}")
            time.sleep(seconds)


def _form(parts: Sequence[tuple[str, bytes]]) -> tuple[bytes, str]:
    """The body of a form with these parts, each with what its head says, and its media type."""
    boundary = secrets.token_hex(16)
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _data(picture: Upload) -> bytes:
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise UserError(f"'{os.fspath(picture)}' cannot be read ({error.strerror}): check the path") from error


def _detail(answer: HTTPResponse) -> str:
    try:
        return printable(json.loads(answer.read(2**16))["detail"], 1000)
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return f"{answer.status} {answer.reason}"
