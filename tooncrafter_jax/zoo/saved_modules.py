"""Weight files of small published networks: what PyTorch saved of one module, in any of its formats."""

from __future__ import annotations

from pathlib import Path

from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.weights.sources import TensorSource, open_source

PARALLEL_PREFIX = "module."
"""Before every name in a file that was saved from a data-parallel wrapper."""


def open_saved_module(path: Path) -> TensorSource:
    """Opens a weight file with the names of a module that is not wrapped.

    Args:
      path: .safetensors or a PyTorch file.

    Raises:
      UserError: if it is missing, damaged or of an unknown kind.
    """
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
