"""One network's parameters in one safetensors file: for the small networks that are no part of the model itself.

Parameters keep our paths and layouts. The file says what network it holds and carries a checksum of its contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from flax import nnx
from safetensors.numpy import save

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.owned_files import foreign
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import Dtype, HostArray, HostParams
from tooncrafter_jax.weights.loading import in_dtype
from tooncrafter_jax.weights.misfit import check_shapes
from tooncrafter_jax.weights.sources import SafetensorsSource, TensorSource, open_source

Config = TypeVar("Config")
GivenConfig = TypeVar("GivenConfig", contravariant=True)
CONV_AXES = (2, 3, 1, 0)
"""A convolution's (out, in, h, w) to (h, w, in, out)."""
UP_CONV_AXES = (2, 3, 0, 1)
"""(in, out, h, w) of a transposed convolution to (h, w, in, out)."""
NETWORK_KEY, CHECKSUM_KEY = "tooncrafter_jax.network", "tooncrafter_jax.sha256"
_MARK_WITHIN = 4096
"""Bytes of a file among which `NETWORK_KEY` is, as a header begins with what the writer has noted."""


@dataclass(frozen=True)
class Target:
    """Where an official tensor goes.

    Attributes:
      path: ours.
      axes: which official axis each of ours is; None for the same order.
      flipped: whether the first two of our axes are reversed as well.
    """

    path: str
    axes: tuple[int, ...] | None = None
    flipped: bool = False

    def ours(self, value: HostArray) -> HostArray:
        """The official tensor in our layout, as a view."""
        value = value if self.axes is None else value.transpose(self.axes)
        return value[::-1, ::-1] if self.flipped else value

    def official_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the official tensor of our shape has."""
        if self.axes is None:
            return shape
        return tuple(length for _, length in sorted(zip(self.axes, shape, strict=True)))


def map_tensors(
    source: TensorSource, table: Mapping[str, Target], network: Network[nnx.Module], *, dtype: Dtype = np.float32
) -> HostParams:
    """A network's parameters from tensors under other names.

    Args:
      source: the tensors.
      table: official name -> where it goes, for every tensor; must cover the network's parameters.
      network: what the parameters must fit.
      dtype: of the result.

    Raises:
      UserError: if tensors are missing, left over or misshaped, or a value does not fit the dtype.
    """
    check_tensors(source, table, network)
    return {
        target.path: in_dtype(target.ours(source.read(name)), dtype, f"{name} of {source.where}")
        for name, target in table.items()
    }


def check_tensors(source: TensorSource, table: Mapping[str, Target], network: Network[nnx.Module]) -> None:
    """Does nothing if a network's parameters can be taken from tensors under other names; see `map_tensors`.

    Raises:
      UserError: if tensors are missing, left over or misshaped.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in network.abstract_params.items()}
    uncovered = shapes.keys() ^ {target.path for target in table.values()}
    if uncovered:
        raise ValueError(f"the name table does not fit the network: {sorted(uncovered)}")
    wanted = {name: target.official_shape(shapes[target.path]) for name, target in table.items()}
    check_shapes(source.shapes, wanted, source.where)


def write_network(
    path: Path, kind: str, params: Mapping[str, HostArray], provenance: Mapping[str, str], *, overwrite: bool = False
) -> None:
    """Writes parameters to a file that is never seen half written.

    Args:
      path: the file; its folder is made if it is missing.
      kind: name of the network, checked by `read_network`.
      params: our paths and layouts.
      provenance: where the parameters come from, kept in the file's header.
      overwrite: whether an existing file is replaced.

    Raises:
      UserError: if the file exists already or cannot be written.
    """
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"'{path}' must end in .safetensors, as that is what is written: choose such a name")
    if path.exists() and not overwrite:
        raise UserError(f"'{path}' exists already: choose another name, or add --overwrite")
    metadata = {NETWORK_KEY: kind, CHECKSUM_KEY: checksum(params), **provenance}
    write_atomically(path, save(dict(params), metadata=metadata))


def check_may_replace(path: Path) -> None:
    """Finds out whether a file may be written again: it is not there, empty, or of `write_network`, be it damaged.

    Raises:
      UserError: it is somebody else's.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_MARK_WITHIN)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): make it readable or choose another directory"
        ) from error
    if beginning and NETWORK_KEY.encode() not in beginning:
        raise foreign(path, "move it away, or choose another directory")


def network_kind(path: Path) -> str | None:
    """Which network a file of `write_network` holds; None for a weight file of anyone else's.

    Raises:
      UserError: if it is missing, or damaged.
    """
    return _open(path)[1].get(NETWORK_KEY)


@runtime_checkable
class Load(Protocol[GivenConfig]):
    """Reads the parameters of a published file, or of one that was converted before."""

    def __call__(self, path: Path, config: GivenConfig | None = None, *, dtype: Dtype = np.float32) -> HostParams:
        """The parameters, by our paths and in our layouts."""
        ...


def convert_network(
    load: Load[Config],
    kind: str,
    source: Path,
    destination: Path,
    config: Config | None = None,
    *,
    dtype: Dtype = np.float32,
    overwrite: bool = False,
) -> int:
    """Converts a published file into one that is read without torch.

    Args:
      load: reads the published file.
      kind: name of the network.
      source: the published file.
      destination: what is written, see `write_network`.
      config: the architecture; the published one by default.
      dtype: of the parameters.
      overwrite: whether an existing file is replaced.

    Returns:
      How many parameters there are.

    Raises:
      UserError: see `load` and `write_network`.
    """
    params = load(source, config, dtype=dtype)
    write_network(destination, kind, params, {"converted_from": source.name}, overwrite=overwrite)
    return len(params)


def read_network(path: Path, kind: str, network: Network[nnx.Module], *, dtype: Dtype | None = None) -> HostParams:
    """The parameters in a file of `write_network`, checked; in the dtypes of the file without `dtype`.

    Raises:
      UserError: if the file is missing or damaged, holds another network, tensors are missing, left over or misshaped,
        or a value does not fit the dtype.
    """
    source, metadata = _open(path)
    found = metadata.get(NETWORK_KEY)
    if found != kind:
        raise UserError(f"'{path}' holds {found or 'something else'}, not the parameters of {kind}: name another file")
    wanted = {name: tuple(leaf.shape) for name, leaf in network.abstract_params.items()}
    check_shapes(source.shapes, wanted, str(path))
    params = {name: source.read(name) for name in wanted}
    if checksum(params) != metadata.get(CHECKSUM_KEY):
        raise UserError(f"'{path}' is damaged, its checksum is another than when it was written: convert it again")
    if dtype is None:
        return params
    return {name: in_dtype(value, dtype, f"{name} of {path}") for name, value in params.items()}


def checksum(params: Mapping[str, HostArray]) -> str:
    """SHA-256 over names, dtypes, shapes and values, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(params):
        value = params[name]
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).data)
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> tuple[TensorSource, dict[str, str]]:
    """A weight file and what its header says of it."""
    source = open_source(path)
    if not isinstance(source, SafetensorsSource):
        return source, {}
    return source, source.metadata
