"""Files of the Hugging Face hub, fetched into the hub's own cache, where other programs find them too.

huggingface_hub itself begins a file anew in each call when it comes over plain HTTP, which is a long way for 10 GB over
a poor line. So the bytes are fetched here: into a file beside the cache's blobs that stays where it is when the
connection breaks or the process ends, and from whose end the next call goes on. What has arrived is compared with the
checksum that the hub states (the sha256 of large files, git's sha1 of small ones) and then becomes a blob, which
`hf_hub_download` links as its own. Addresses, tokens, proxies and the cache's place are huggingface_hub's.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import disk_errors, sync_file, write_atomically
from tooncrafter_jax.io.locks import held
from tooncrafter_jax.notes import note
from tooncrafter_jax.weights.hub_checks import CHUNK, Checksum
from tooncrafter_jax.weights.hub_errors import (
    asking,
    http_errors,
    import_hub,
    no_hub,
    offline,
    open_client,
    refused,
    token_origin,
    unreachable,
)
from tooncrafter_jax.weights.hub_names import MAIN, HubName, is_commit, is_plain_path

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before another try at a connection that broke; after a byte has arrived they count anew."""
KEPT = "what was downloaded is kept, and the same command goes on from there"
"""Of a download that ends before its time."""
_ETAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{,199}")
_LIBRARY: dict[str, Any] = {"library_name": "tooncrafter_jax"}
"""Who asks, for the hub's statistics."""


@runtime_checkable
class Bar(Protocol):
    """Shows how far a download is, as tqdm does."""

    def update(self, n: int) -> object:
        """So many more bytes have arrived."""
        ...

    def close(self) -> object:
        """It is at its end."""
        ...


OpenBar = Callable[[str, int, int], Bar]
"""Of a title, the bytes of the file, and how many of them are there, makes a bar."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it.

    Attributes:
      name: its repository, revision as it was asked for, and path.
      commit: of that revision, 40 hexadecimal digits.
      size: in bytes.
      etag: its checksum: sha256, or git's sha1.
    """

    name: HubName
    commit: str
    size: int
    etag: str


class _Broken(Exception):
    """A connection that ended before its time."""


@dataclass(frozen=True)
class Access:
    """How the hub is reached, where that is not left to the environment.

    Attributes:
      cache: the hub's cache; None: as `HF_HUB_CACHE` or `HF_HOME` says.
      token: of the account that may read; None or True: as `HF_TOKEN` or `hf auth login` says; False: none is sent. It
        is never shown.
      offline: whether nothing may be asked for, as `HF_HUB_OFFLINE` says it for all.
    """

    cache: Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    offline: bool = False


BY_ENVIRONMENT = Access()


class Hub:
    """The hub that the environment names, and its cache.

    Args:
      access: what is not left to the environment.

    Raises:
      UserError: huggingface_hub is not installed.
    """

    def __init__(self, access: Access = BY_ENVIRONMENT) -> None:
        self._hub, self._token = import_hub(), _token(access.token)
        self._origin = token_origin(isinstance(self._token, str))
        from huggingface_hub import constants

        self.endpoint, self.cache = str(constants.ENDPOINT), access.cache or Path(constants.HF_HUB_CACHE)
        self.is_offline = access.offline or bool(constants.HF_HUB_OFFLINE)
        self._timeout, self._etag_timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.HF_HUB_ETAG_TIMEOUT

    def cached(self, name: HubName) -> Path | None:
        """The file of the cache; None if it is not there, or of no known revision."""
        assert name.file is not None
        found = self._hub.try_to_load_from_cache(
            name.repository, name.file, cache_dir=self.cache, revision=name.revision
        )
        return Path(found) if isinstance(found, str) else None

    def files(self, name: HubName) -> dict[str, int]:
        """The files of a repository, with their sizes in bytes; without those whose names lead somewhere else.

        Raises:
          UserError: there is no such repository or revision, or no answer.
        """
        self._check_online(name)
        with asking(name, self.endpoint, self._origin):
            api = self._hub.HfApi(endpoint=self.endpoint, token=self._token, **_LIBRARY)
            found = api.model_info(name.repository, revision=name.revision, files_metadata=True, timeout=self._timeout)
        return {one.rfilename: one.size or 0 for one in found.siblings or () if is_plain_path(one.rfilename)}

    def cached_files(self, name: HubName) -> dict[str, int]:
        """Those files of a repository that are in the cache, with their sizes in bytes."""
        folder, revision = self._folder(name), name.revision or MAIN
        try:
            commit = revision if is_commit(revision) else (folder / "refs" / revision).read_text().strip()
            if not is_commit(commit):
                return {}
            snapshot = folder / "snapshots" / commit
            there = sorted(path for path in snapshot.rglob("*") if path.is_file())
            found = {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in there}
        except (OSError, UnicodeDecodeError):
            return {}
        return {file: size for file, size in found.items() if is_plain_path(file)}

    def describe(self, name: HubName) -> RemoteFile:
        """Asks the hub about a file.

        Raises:
          UserError: there is no such file, it may not be read, or there is no answer.
        """
        self._check_online(name)
        assert name.file is not None
        with asking(name, self.endpoint, self._origin):
            url = self._hub.hf_hub_url(name.repository, name.file, revision=name.revision, endpoint=self.endpoint)
            about = self._hub.get_hf_file_metadata(
                url, token=self._token, endpoint=self.endpoint, timeout=self._etag_timeout, **_LIBRARY
            )
        commit, etag, size = about.commit_hash or "", about.etag or "", about.size
        if not is_commit(commit) or not _ETAG.fullmatch(etag) or size is None or size < 0:
            raise no_hub(name, self.endpoint)
        return RemoteFile(name, commit, size, etag)

    def beginning(self, file: RemoteFile, most: int) -> bytes:
        """The first bytes of a file, or all of it if it is shorter; they are not kept.

        Raises:
          UserError: the hub refuses, or the connection breaks.
        """
        self._check_online(file.name)
        found = b""
        with contextlib.closing(self._stream(file, 0)) as pieces:
            try:
                while len(found) < min(most, file.size):
                    found += next(pieces)[0]
            except (_Broken, StopIteration) as error:
                raise unreachable(error.__cause__ or error, self.endpoint) from error
        return found[:most]

    def arrived(self, file: RemoteFile) -> int:
        """Bytes of a file that need not be fetched any more."""
        blob, part = self._places(file)
        if blob.exists():
            return file.size
        return part.stat().st_size if part.exists() else 0

    def download(self, file: RemoteFile, open_bar: OpenBar) -> Path:
        """Fetches a file that is not in the cache, from where an earlier call ended.

        Args:
          file: as `describe` says.
          open_bar: shows the progress.

        Returns:
          Its path in the cache.

        Raises:
          UserError: the connection breaks again and again, the disk is full, or what arrived is not what the hub
            states.
          KeyboardInterrupt: as it came; it says what is left.
        """
        self._check_online(file.name)
        blob, part = self._places(file)
        lock = self.cache / ".locks" / blob.parents[1].name / f"{file.etag}.lock"  # huggingface_hub's own
        with disk_errors(blob, " (HF_HUB_CACHE); what was downloaded before is kept"):
            blob.parent.mkdir(parents=True, exist_ok=True)
            with held(lock, f"another process is downloading {file.name.file}: waiting for it"):
                if not blob.exists():
                    try:
                        self._fill(part, file, open_bar)
                    except KeyboardInterrupt as error:
                        raise KeyboardInterrupt(KEPT) from error
                    sync_file(os.fspath(part))
                    part.replace(blob)
            return self._linked(file, blob)

    def _places(self, file: RemoteFile) -> tuple[Path, Path]:
        """Where the file's content belongs, and where it is until it is whole."""
        blobs = self._folder(file.name) / "blobs"
        return blobs / file.etag, blobs / f"{file.etag}.tooncrafter.incomplete"

    def _folder(self, name: HubName) -> Path:
        """Of a repository in the cache."""
        from huggingface_hub.file_download import repo_folder_name

        return self.cache / repo_folder_name(repo_id=name.repository, repo_type="model")

    def _linked(self, file: RemoteFile, blob: Path) -> Path:
        """The name of a blob in the snapshot of its commit, and the commit of its revision, as huggingface_hub has
        them.
        """
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(
                self._hub.hf_hub_download(
                    file.name.repository,
                    file.name.file,
                    revision=file.commit,
                    cache_dir=self.cache,
                    token=self._token,
                    endpoint=self.endpoint,
                    **_LIBRARY,
                )
            )
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise refused(cause, file.name, self.endpoint, self._origin) from error
        revision = file.name.revision or MAIN
        if revision != file.commit:
            write_atomically(blob.parents[1] / "refs" / revision, file.commit.encode())
        if not path.is_symlink():  # on a disk without links it was copied
            blob.unlink(missing_ok=True)
        return path

    def _fill(self, part: Path, file: RemoteFile, open_bar: OpenBar) -> None:
        """Fetches what is missing of a file; at the end it is whole and as the hub states."""
        assert file.name.file is not None
        again = part.exists() and part.stat().st_size > 0
        for fresh in (False, True):
            with part.open("r+b" if part.exists() and not fresh else "w+b", buffering=0) as target:
                checksum = Checksum(file.size, file.etag)
                start = checksum.add_file(target)
                bar = open_bar(Path(file.name.file).name, file.size, start)
                try:
                    self._append(target, start, checksum, file, bar)
                finally:
                    bar.close()
            if checksum.fits():
                return
            part.unlink()
            if not again:
                break
            note(f"{file.name.file} had been damaged when its download was cut off: beginning anew")
            again = False
        raise UserError(
            f"{file.name} did not arrive as {self.endpoint} states it (another checksum): run the same again, and if "
            "that ends so too, name another revision or fetch it elsewhere"
        )

    def _append(self, target: IO[bytes], start: int, checksum: Checksum, file: RemoteFile, bar: Bar) -> None:
        """Fetches the bytes from `start` on, over as many connections as it takes."""
        done, failures = start, 0
        while done < file.size:
            before = done
            try:
                with contextlib.closing(self._stream(file, done)) as pieces:
                    for data, position in pieces:
                        if position == 0 and done > 0:  # the server cannot begin elsewhere
                            target.seek(0)
                            target.truncate()
                            checksum.restart()
                            bar.update(-done)
                            done = 0
                        data = data[: file.size - done]
                        _write_all(target, data)
                        checksum.add(data)
                        bar.update(len(data))
                        done += len(data)
                        if done == file.size:
                            return
            except _Broken as error:
                reason = error.__cause__ or error
            else:
                reason = _Broken("the answer was shorter than announced")
            failures = 1 if done > before else failures + 1
            if failures > len(WAITS):
                raise UserError(
                    f"the connection to {self.endpoint} broke at {done / 1e9:.2f} of {file.size / 1e9:.2f} GB of "
                    f"{file.name.file} ({' '.join(str(reason).split())[:200] or type(reason).__name__}): run the same "
                    "again, and it goes on from there"
                )
            time.sleep(WAITS[failures - 1])

    def _stream(self, file: RemoteFile, start: int) -> Generator[tuple[bytes, int]]:
        """Pieces of a file, with the position of each; the first one tells whether the server goes on where it was
        asked to.

        Raises:
          _Broken: the connection ends early.
          UserError: the hub refuses.
        """
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        headers = build_hf_headers(token=self._token, **_LIBRARY) | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        assert file.name.file is not None
        url = self._hub.hf_hub_url(file.name.repository, file.name.file, revision=file.commit, endpoint=self.endpoint)
        client = open_client(self.endpoint)
        with contextlib.ExitStack() as stack:
            try:
                # The client leaves the token out when it is sent on to another host.
                request = client.stream("GET", url, headers=headers, timeout=self._timeout, follow_redirects=True)
                response = stack.enter_context(request)
            except http_errors() as error:
                raise _Broken from error
            if response.status_code not in (200, 206):
                if response.status_code in (408, 416, 429) or response.status_code >= 500:
                    raise _Broken(f"it answered {response.status_code}")
                try:
                    hf_raise_for_status(response)
                except http_errors() as error:
                    raise refused(error, file.name, self.endpoint, self._origin) from error
            position = _start_of(response)
            if position not in (0, start):
                raise _Broken(f"it sent the bytes from {position} on instead of those from {start} on")
            pieces = response.iter_bytes(CHUNK)
            while True:
                try:
                    data = next(pieces, None)
                except http_errors() as error:
                    raise _Broken from error
                if data is None:
                    return
                yield data, position
                position += len(data)

    def _check_online(self, name: HubName) -> None:
        if self.is_offline:
            raise offline(name)
        open_client(self.endpoint)


def _token(given: str | bool | None) -> str | bool | None:
    """A token as it is sent, without the spaces and line breaks that come along when it is copied."""
    if isinstance(given, str):
        return "".join(given.split()) or None
    return False if given is False else None


def _start_of(response: Any) -> int:
    """The position of the first byte that a server sends."""
    if response.status_code != 206:
        return 0
    given = response.headers.get("Content-Range", "")
    try:
        return int(given.removeprefix("bytes").strip().partition("-")[0])
    except ValueError:
        raise _Broken(f"it answered with the range '{given}'") from None


def _write_all(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
