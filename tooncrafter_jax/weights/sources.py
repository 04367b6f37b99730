"""Where tensors come from: safetensors files, PyTorch checkpoints, or the weight rule; one tensor at a time."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

import ml_dtypes
import numpy as np

from tooncrafter_jax.errors import UserError, missing_extra
from tooncrafter_jax.typing import Dtype, HostArray
from tooncrafter_jax.weights.safetensors_header import read_header

DEEPSPEED_PREFIX_LENGTH = 16
"""Characters in front of every name in a DeepSpeed file (spec section 1)."""

LARGEST_LISTING = 2**26
"""Bytes of the pickle that says how a checkpoint's tensors are made; that of the published model has less than 1 MB."""


@runtime_checkable
class TensorSource(Protocol):
    """Named tensors in PyTorch layout.

    Attributes:
      where: what the tensors come from, for messages.
      shapes: name -> shape.
    """

    where: str

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""
        ...

    def read(self, name: str) -> HostArray:
        """One tensor (float32, float16 or bfloat16)."""
        ...


_SAFETENSORS_DTYPES: dict[str, Dtype] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
}


class SafetensorsSource:
    """Tensors of a .safetensors file, read one by one without mapping the file into memory.

    Attributes:
      metadata: what the writer has noted, text by name.

    Raises:
      UserError: if the file is truncated, not safetensors, or holds what no weights are; see `read_header`.
      OSError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        header = read_header(path)
        self._entries, self.metadata = header.tensors, header.metadata
        strange = sorted({entry.dtype for entry in self._entries.values()} - set(_SAFETENSORS_DTYPES))
        if strange:
            some = ", ".join(dtype[:16] for dtype in strange[:3])
            raise UserError(f"{path} holds tensors of type {some}, which no ToonCrafter weights have")
        self.shapes = {name: entry.shape for name, entry in self._entries.items()}

    @property
    def bytes(self) -> int:
        """Of all tensors together."""
        return sum(entry.stop - entry.start for entry in self._entries.values())

    def read(self, name: str) -> HostArray:
        """The tensor of this name in the file's dtype.

        Raises:
          UserError: if the file has changed since it was opened.
        """
        entry = self._entries[name]
        try:
            with self._path.open("rb") as file:
                file.seek(entry.start)
                raw = file.read(entry.stop - entry.start)
        except OSError as error:
            raise UserError(f"cannot read {self._path}: {error.strerror}") from error
        if len(raw) != entry.stop - entry.start:
            raise UserError(f"{self._path} was cut off while it was read: copy it again")
        return np.frombuffer(raw, _SAFETENSORS_DTYPES[entry.dtype]).reshape(entry.shape)


class CkptSource:
    """Tensors of a PyTorch checkpoint; needs the extra `convert`. Never unpickles code.

    Args:
      path: a file with a `state_dict` (possibly nested twice), a DeepSpeed `module`, or the tensors themselves.

    Raises:
      UserError: if torch is not installed, or the file is damaged or holds anything but tensors and plain values.
    """

    def __init__(self, path: Path) -> None:
        torch = import_torch(path)
        self.where = str(path)
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path} is not a PyTorch checkpoint in zip format or is cut off: copy it again")
        _check_archive(path)
        loaded = load_without_code(path, mmap=True, remedy="ask for a .safetensors file")
        self._tensors = _unwrap(loaded, str(path), torch.Tensor)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> HostArray:
        """The tensor of this name in the file's dtype.

        Raises:
          UserError: if it is of a type or layout that no weights have, or states more numbers than the file holds for
            it.
        """
        import torch

        tensor = self._tensors[name].detach()
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{self.where} holds the tensor {name} in a form that no ToonCrafter weights have")
        if str(tensor.dtype).removeprefix("torch.") not in _TORCH_DTYPES:
            raise UserError(f"{self.where} holds tensors of type {tensor.dtype}, which no ToonCrafter weights have")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(
                f"{self.where} is damaged: the tensor {name} states more numbers than the file holds for it"
            )
        tensor = tensor.contiguous()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()


_TORCH_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")


def _check_archive(path: Path) -> None:
    """Checks that a zip archive is laid out as PyTorch writes it: every file as it is, none twice, and no huge listing.

    Raises:
      UserError: if it could unfold into more than it is.
    """
    damaged = f"{path} was refused: it is damaged, or no checkpoint that PyTorch wrote"
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.infolist()
    except (
        Exception
    ) as error:  # damaged archives raise nearly anything: BadZipFile, struct.error, NotImplementedError, ...
        raise UserError(f"{damaged}; copy it again") from error
    if any(file.compress_type != zipfile.ZIP_STORED or file.compress_size != file.file_size for file in files):
        raise UserError(f"{damaged}, as files in it are compressed; ask for a .safetensors file")
    if sum(file.file_size for file in files) > path.stat().st_size:
        raise UserError(f"{damaged}, as files in it lie over one another; ask for a .safetensors file")
    listings = [file.file_size for file in files if file.filename.endswith("/data.pkl")]
    if max(listings, default=0) > LARGEST_LISTING or len({file.filename for file in files}) < len(files):
        raise UserError(f"{damaged}, as it has a listing of {max(listings, default=0):,} bytes, or files twice")


def import_torch(path: Path) -> ModuleType:
    """The module, to read a file with.

    Raises:
      UserError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "convert", f"reading {path.name}") from error
    return torch


def load_without_code(path: Path, *, mmap: bool = False, remedy: str) -> Any:
    """What a PyTorch file holds, if that is nothing but tensors and plain values.

    Args:
      path: the file.
      mmap: whether tensors are read when they are used; not in files from before PyTorch 1.6.
      remedy: what to do about a file that is refused.

    Raises:
      UserError: torch is not installed, or the file is damaged or holds anything else.
    """
    torch = import_torch(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of the pickle protocol, of no use to the user
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, ... for damaged or unsafe files
        raise UserError(
            f"{path} was refused: it is damaged, or it holds Python objects other than tensors, which could run code "
            f"and are never loaded; {remedy}"
        ) from error


Tensor = TypeVar("Tensor")


def _unwrap(loaded: object, where: str, tensor_type: type[Tensor]) -> dict[str, Tensor]:
    """The name -> tensor mapping inside a checkpoint's wrappers (spec section 1)."""
    for _ in range(2):
        if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
            loaded = loaded["state_dict"]
    if isinstance(loaded, Mapping) and isinstance(loaded.get("module"), Mapping):
        loaded = {str(name)[DEEPSPEED_PREFIX_LENGTH:]: value for name, value in loaded["module"].items()}
    if not isinstance(loaded, Mapping):
        raise UserError(f"{where} holds no mapping from names to tensors")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, tensor_type)}
    if not tensors:
        raise UserError(f"{where} holds no tensors")
    return tensors


def open_source(path: Path) -> TensorSource:
    """Opens a weight file by its extension.

    Raises:
      UserError: if it is missing, no file, empty, damaged or of an unknown kind.
    """
    try:
        if not path.exists():
            raise UserError(f"no file {path}")
        if path.is_dir():
            raise UserError(f"{path} is a directory, not a weight file")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty")
        if path.suffix == ".safetensors":
            return SafetensorsSource(path)
        if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
            return CkptSource(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    raise UserError(f"{path} is of an unknown kind: a weight file ends in .safetensors, .ckpt, .pt, .pth or .bin")
