"""Weight files of small published networks: what PyTorch saved of one module, in either of its formats."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.weights.sources import TensorSource, import_torch, load_without_code, open_source

PARALLEL_PREFIX = "module."
"""Before every name in a file that was saved from a data-parallel wrapper."""


def open_saved_module(path: Path) -> TensorSource:
    """Opens a weight file with the names of a module that is not wrapped.

    Args:
      path: .safetensors, or with the extra `convert` a PyTorch file, also of the format before PyTorch 1.6.

    Raises:
      UserError: if it is missing, damaged or of an unknown kind.
    """
    if path.suffix == ".pth" and path.is_file() and path.stat().st_size and not zipfile.is_zipfile(path):
        source: TensorSource = _OldTorchSource(path)
    else:
        source = open_source(path)
    if source.shapes and all(name.startswith(PARALLEL_PREFIX) for name in source.shapes):
        return _Unwrapped(source)
    return source


class _Unwrapped:
    """Another source without `module.` before its names."""

    def __init__(self, source: TensorSource) -> None:
        self.where, self._source = source.where, source
        self.shapes = {name.removeprefix(PARALLEL_PREFIX): shape for name, shape in source.shapes.items()}

    def read(self, name: str) -> HostArray:
        """The tensor of this name."""
        return self._source.read(PARALLEL_PREFIX + name)


class _OldTorchSource:
    """Tensors of a file in PyTorch's format before 1.6, which is no zip archive. Never unpickles code."""

    def __init__(self, path: Path) -> None:
        torch = import_torch(path)
        self.where = str(path)
        loaded = load_without_code(path, remedy="download it again")
        if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
            raise UserError(f"{path} holds no mapping from names to tensors: download it again")
        self._tensors = {str(name): value for name, value in loaded.items()}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> HostArray:
        """The tensor of this name, float32."""
        return self._tensors[name].detach().contiguous().float().numpy()
