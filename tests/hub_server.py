"""A hub of model repositories on this machine: the part of the Hugging Face hub's protocol that downloads use.

Large files are answered with a redirect to another host (`localhost` instead of 127.0.0.1), as the hub does with its
stores, and the description of a file stands on the redirect. Connections can be cut, held and refused at a given place,
and every request is kept.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = 1000
"""Bytes from which on a file is kept in the store and not in the repository itself."""
TOKEN = "hf_read"
"""The one that opens private repositories."""


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
      method, path: of HTTP.
      host: that it was sent to.
      start: first byte that was wanted; 0 without a range.
      token: that came with it.
    """

    method: str
    path: str
    host: str
    start: int
    token: str | None


@dataclass
class Repository:
    """A model repository.

    Attributes:
      commits: commit -> path -> content.
      revisions: branch or tag -> commit.
      refuses: the code of the error that whoever has no token gets, e.g. "RepoNotFound".
      status: of that error.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    refuses: str = ""
    status: int = 401

    def commit(self, files: dict[str, bytes], *revisions: str) -> str:
        """Adds a commit with these files, to which the revisions (`main` without) point."""
        name = hashlib.sha1(repr(sorted(files.items())).encode() + str(len(self.commits)).encode()).hexdigest()
        self.commits[name] = files
        for revision in revisions or ("main",):
            self.revisions[revision] = name
        return name


@dataclass
class Hub:
    """The server.

    Attributes:
      repositories: by name.
      log: all requests that came.
      cuts: after how many bytes the next answers of the store end; what is not in the list is sent whole.
      on_bytes: called with the number of bytes that a store's answer has sent, after each piece.
      obeys_ranges: whether the store begins where it is asked to.
      altered: sha256 -> what the store sends instead of that file.
      announced: sha256 -> the size that is stated instead of that file's.
      stopped: whether it answers no more.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    on_bytes: Callable[[int], None] = lambda sent: None
    obeys_ranges: bool = True
    altered: dict[str, bytes] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)

    stopped: bool = False

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answers no more, on connections that are open either."""
        self.stopped = True
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def repository(self, name: str) -> Repository:
        """The repository of this name, made if there is none."""
        return self.repositories.setdefault(name, Repository())

    def of_store(self) -> list[Request]:
        """The downloads of large files."""
        return [one for one in self.log if one.method == "GET" and one.path.startswith("/store/")]

    def asked(self) -> list[Request]:
        """All requests about repositories; the package may ask about other things too."""
        return [one for one in self.log if "/resolve/" in one.path or one.path.startswith(("/store/", "/api/models/"))]

    def stored(self, sha256: str) -> bytes | None:
        """A large file of any repository."""
        if sha256 in self.altered:
            return self.altered[sha256]
        contents = (
            data for one in self.repositories.values() for files in one.commits.values() for data in files.values()
        )
        return next((data for data in contents if hashlib.sha256(data).hexdigest() == sha256), None)

    def environment(self, home: str) -> dict[str, str]:
        """The variables of a process that is to use it."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": f"{home}/huggingface",
            "HF_HUB_CACHE": f"{home}/hub",
            "XDG_CACHE_HOME": f"{home}/cache",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
        """Makes this process use it: huggingface_hub has read its variables when it was loaded."""
        from huggingface_hub import constants

        for name, value in self.environment(home).items():
            monkeypatch.setenv(name, value)
        changes: dict[str, Any] = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": f"{home}/hub",
            "HF_TOKEN_PATH": f"{home}/huggingface/token",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_ETAG_TIMEOUT": 5,
            "HF_HUB_DOWNLOAD_TIMEOUT": 5,
        }
        for name, value in changes.items():
            monkeypatch.setattr(constants, name, value)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.hub.stopped:
            self.close_connection = True
            return
        wanted = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        path = urlsplit(self.path).path
        host = self.headers.get("Host", "").partition(":")[0]
        self.hub.log.append(Request(self.command, path, host, int(wanted), token))
        if path.startswith("/store/"):
            self._send_stored(path.removeprefix("/store/"), int(wanted))
            return
        parts = [unquote(part) for part in path.strip("/").split("/")]
        is_api = parts[:2] == ["api", "models"]
        names, rest = (parts[2:4], parts[4:]) if is_api else (parts[:2], parts[2:])
        repository = self.hub.repositories.get("/".join(names))
        if token not in (None, TOKEN):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None:
            self._refuse(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif repository.refuses and token != TOKEN:
            self._refuse(repository.status, repository.refuses, "Access is restricted")
        elif is_api:
            self._describe(repository, "/".join(names), rest[1] if rest[:1] == ["revision"] else "main")
        elif rest[0] == "resolve":
            self._resolve(repository, rest[1], "/".join(rest[2:]))
        else:
            self._refuse(404, "", "")

    def _describe(self, repository: Repository, name: str, revision: str) -> None:
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        files = [
            {"rfilename": path, "size": len(data), "blobId": "0" * 40}
            for path, data in repository.commits[commit].items()
        ]
        self._send(200, json.dumps({"id": name, "sha": commit, "siblings": files}).encode())

    def _resolve(self, repository: Repository, revision: str, path: str) -> None:
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        data = repository.commits[commit].get(path)
        about = {"X-Repo-Commit": commit}
        if data is None:
            self._refuse(404, "EntryNotFound", "Entry not found", about)
        elif len(data) < LARGE:
            checksum = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            self._send(200, data, about | {"ETag": f'"{checksum}"'})
        else:
            sha256 = hashlib.sha256(data).hexdigest()
            about |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(self.hub.announced.get(sha256, len(data)))}
            self._send(302, b"", about | {"Location": f"http://localhost:{self.hub.port}/store/{sha256}"})

    def _send_stored(self, sha256: str, start: int) -> None:
        data = self.hub.stored(sha256)
        if data is None:
            self._refuse(404, "", "")
            return
        start = start if self.hub.obeys_ranges else 0
        stop = start + self.hub.cuts.pop(0) if self.hub.cuts else len(data)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        for at in range(start, min(stop, len(data)), 2**18):
            self.wfile.write(data[at : min(at + 2**18, stop)])
            self.wfile.flush()
            self.hub.on_bytes(min(at + 2**18, stop))
        if stop < len(data):
            self.close_connection = True

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        about = {"X-Error-Code": code} if code else {}
        self._send(status, b"", about | {"X-Error-Message": message} | (headers or {}))

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
