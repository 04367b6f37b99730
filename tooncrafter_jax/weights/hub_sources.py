"""Where the files of a published model are: in the hub's cache or at the hub, and what they hold."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import note
from tooncrafter_jax.weights.hub_download import Hub, RemoteFile
from tooncrafter_jax.weights.hub_names import HubName, is_commit
from tooncrafter_jax.weights.known_models import PublishedFile
from tooncrafter_jax.weights.loading import components_in
from tooncrafter_jax.weights.sources import SafetensorsSource

LARGE = 2**26
"""Bytes from which on a file is looked at before it is downloaded."""
_LONGEST_HEADER = 2**22


class Source(NamedTuple):
    """A file that a model is made of.

    Attributes:
      name: with its revision as it was asked for.
      commit: of that revision.
      size: in bytes.
      path: in the hub's cache; None if it is not there.
      remote: as the hub describes it; None if it was not asked.
    """

    name: HubName
    commit: str
    size: int
    path: Path | None
    remote: RemoteFile | None


def locate(hub: Hub, file: PublishedFile) -> Source:
    """Where a file is: in the cache, without a request if its revision is a commit, or else at the hub.

    Raises:
      UserError: there is no such file, it may not be read, there is no answer, or it is not the one that is known.
    """
    name = HubName(file.repository, file.revision, file.file)
    if is_commit(file.revision) or hub.is_offline:
        if (path := hub.cached(name)) is not None:
            _check_published(path.resolve().name, file, str(path))
            return _cached(name, path)
    try:
        remote = hub.describe(name)
    except UserError as error:
        if hub.is_offline or (path := hub.cached(name)) is None:
            raise
        note(f"{error}; going on with {name} as it was when it was downloaded")
        return _cached(name, path)
    _check_published(remote.etag, file, hub.endpoint)
    path = hub.cached(HubName(file.repository, remote.commit, file.file))
    return Source(name, remote.commit, remote.size, path, None if path else remote)


def components_of_remote(hub: Hub, source: Source) -> tuple[str, ...]:
    """What a large safetensors file holds, from its first bytes, before all of it comes; nothing if that cannot be
    told.

    Raises:
      UserError: it is damaged, or holds no part of a model.
    """
    file = source.remote
    if file is None or file.size < LARGE or not str(file.name).endswith(".safetensors") or hub.arrived(file):
        return ()
    head = hub.beginning(file, _LONGEST_HEADER)
    if 8 + int.from_bytes(head[:8], "little") > len(head):
        return ()
    with tempfile.TemporaryDirectory(prefix="tooncrafter-") as folder:
        hollow = Path(folder) / "model.safetensors"  # the header, and no numbers
        hollow.write_bytes(head)
        try:
            os.truncate(hollow, file.size)
        except OSError:  # of a file system that cannot have such a file without its content
            return ()
        try:
            return components_in(SafetensorsSource(hollow))
        except UserError as error:
            raise UserError(str(error).replace(str(hollow), str(source.name))) from error


def _check_published(etag: str, file: PublishedFile, where: str) -> None:
    """Finds out whether a file is the one that is known.

    Raises:
      UserError: it is not.
    """
    if file.sha256 is not None and len(etag) == 64 and etag != file.sha256:
        raise UserError(
            f"{file} at {where} is not the published file (its sha256 is {etag[:12]}... instead of "
            f"{file.sha256[:12]}...): check HF_ENDPOINT; a name with @main takes the file as it is"
        )


def _cached(name: HubName, path: Path) -> Source:
    """A file of the cache, which lies in the folder of its commit."""
    assert name.file is not None
    commit = path.parents[name.file.count("/")].name
    return Source(name, commit, path.stat().st_size, path, None)
