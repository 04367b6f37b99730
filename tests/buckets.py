"""Buckets for tests: a memory file system of fsspec's behind `gs://`, and a directory of this machine behind
`disk://`.
"""

import contextlib
from pathlib import Path

import fsspec
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry


class Bucket(MemoryFileSystem):
    """What `gs://` opens, in memory."""

    protocol = ("gs", "gcs")
    store, pseudo_dirs = {}, [""]
    root_marker = "/"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("gs://", "memory://", 1).replace("gcs://", "memory://", 1))


@contextlib.contextmanager
def memory_behind_gs():
    """`gs://` is an empty memory file system meanwhile."""
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    backend.fsspec_backend._get_filesystem.cache_clear()  # noqa: SLF001 (etils has no other way)
    try:
        yield Bucket
    finally:
        Bucket.store.clear()
        _registry.pop("gcs", None)
        backend.fsspec_backend._get_filesystem.cache_clear()  # noqa: SLF001 (etils has no other way)


@epath.register_path_cls("disk://")
class Disk:
    """Makes the path of this machine that a `disk://` URL stands for, below a root that a test sets."""

    root = ""

    def __new__(cls, url):
        # Not a path of etils': from Python 3.12 on, that would be initialised once more, with the URL.
        return Path(cls.root) / str(url).removeprefix("disk://")
