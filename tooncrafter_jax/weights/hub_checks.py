"""Whether what has arrived from the hub is what it states: sizes, checksums, and no pointer to something else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.weights.hub_names import HubName

CHUNK = 2**20
"""Bytes that are read at a time."""
LARGEST_POINTER = 1024
"""Bytes of a file that may be a pointer of Git LFS."""
_POINTER = b"version https://git-lfs.github.com/spec/"


class Checksum:
    """What has arrived of a file, as the hub counts its checksum.

    Args:
      size: of the whole, in bytes.
      etag: its checksum: sha256, or git's sha1.
    """

    def __init__(self, size: int, etag: str) -> None:
        self._size, self._etag = size, etag
        self.restart()

    def restart(self) -> None:
        """Nothing has arrived."""
        self._hash = hashlib.sha256()
        if len(self._etag) == 40:  # git's checksum of a file that lies in the repository itself
            self._hash = hashlib.sha1(f"blob {self._size}\0".encode(), usedforsecurity=False)

    def add(self, data: bytes) -> None:
        """These bytes have arrived."""
        self._hash.update(data)

    def add_file(self, file: IO[bytes]) -> int:
        """Adds what an open file holds and returns how much that is; one that is longer than the whole is emptied."""
        size = os.fstat(file.fileno()).st_size
        if size > self._size:
            file.truncate(0)
            size = 0
        while data := file.read(CHUNK):
            self.add(data)
        return size

    def fits(self) -> bool:
        """Whether the whole is what the hub states; a server that states no checksum is believed."""
        return len(self._etag) not in (40, 64) or self._hash.hexdigest() == self._etag.lower()


def check_content(path: Path, name: HubName) -> None:
    """Finds out whether a file of the cache has the checksum that it is named after there.

    Raises:
      UserError: it has not, or is a pointer to something else.
    """
    check_no_pointer(path, name)
    etag, size = path.resolve().name, path.stat().st_size
    if len(etag) not in (40, 64):  # a copy, on a disk without links
        return
    checksum = Checksum(size, etag)
    with path.open("rb") as file:
        checksum.add_file(file)
    if not checksum.fits():
        raise UserError(f"{path.resolve()} is damaged (its checksum is not its name): delete it and run the same again")


def check_no_pointer(path: Path, name: HubName) -> None:
    """Finds out whether a file is one of those that Git LFS leaves where the content should be.

    Raises:
      UserError: it is.
    """
    if path.stat().st_size <= LARGEST_POINTER and path.read_bytes().startswith(_POINTER):
        raise UserError(
            f"{name} is a pointer of Git LFS and not the weights, which were never uploaded: name another file or "
            "revision"
        )
