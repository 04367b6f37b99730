"""Where tensors come from: safetensors files or PyTorch checkpoints, one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import Dtype, HostArray
from tooncrafter_jax.weights.safetensors_header import read_header
from tooncrafter_jax.weights.torch_archive import TorchSource

_NO_WEIGHTS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file that it stands for: run git lfs pull",
    b"<!doctype html": "is a web page, not a weight file: download the file itself",
    b"<html": "is a web page, not a weight file: download the file itself",
}
"""How files begin, in small letters, that are often taken for weights -> what is said of them."""
_UNFINISHED = (".part", ".partial", ".incomplete", ".crdownload", ".aria2", ".tmp")
"""Endings of downloads that are not complete."""


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
            raise UserError(
                f"{path} holds tensors of type {some}, which no ToonCrafter weights have: name another file"
            )
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
            raise UserError(f"cannot read {self._path} ({error.strerror}): check the disk that it is on") from error
        if len(raw) != entry.stop - entry.start:
            raise UserError(f"{self._path} was cut off while it was read: copy it again")
        return np.frombuffer(raw, _SAFETENSORS_DTYPES[entry.dtype]).reshape(entry.shape)


def open_source(path: Path) -> TensorSource:
    """Opens a weight file by its extension.

    Raises:
      UserError: if it is missing, no file, empty, damaged or of an unknown kind.
    """
    try:
        if not path.exists():
            raise UserError(f"no file {path}: check the path")
        if path.is_dir():
            raise UserError(f"{path} is a directory, not a weight file: name one in it")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty: copy or download it again")
        with path.open("rb") as file:
            beginning = file.read(max(map(len, _NO_WEIGHTS))).lower()
        for other, sentence in _NO_WEIGHTS.items():
            if beginning.startswith(other):
                raise UserError(f"{path} {sentence}")
        ending = path.suffix.lower()
        if ending == ".safetensors":
            return SafetensorsSource(path)
        if ending in (".ckpt", ".pt", ".pth", ".bin"):
            return TorchSource(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check who may read it") from error
    if path.suffix.lower() in _UNFINISHED:
        raise UserError(f"{path} is a download that is not finished: fetch the rest of it")
    raise UserError(f"{path} is of an unknown kind: a weight file ends in .safetensors, .ckpt, .pt, .pth or .bin")
