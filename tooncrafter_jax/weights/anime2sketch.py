"""The published weights of the sketch extractor Anime2Sketch: their names, layouts and files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.anime2sketch import Anime2Sketch, Anime2SketchConfig
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import Dtype
from tooncrafter_jax.weights.network_file import Target, map_tensors, network_kind, read_network, write_network
from tooncrafter_jax.weights.sources import TensorSource, import_torch, load_without_code, open_source

KIND = "anime2sketch"
PARALLEL_PREFIX = "module."
"""Before every name in a file that was saved from a data-parallel wrapper."""
CONV_AXES = (2, 3, 1, 0)
"""(out, in, h, w) to (h, w, in, out)."""
UP_CONV_AXES = (2, 3, 0, 1)
"""(in, out, h, w) of a transposed convolution to (h, w, in, out)."""


def name_table(config: Anime2SketchConfig) -> dict[str, Target]:
    """Official name -> our path and layout, for every tensor.

    The official levels are nested: each holds its down convolution, the next level and its up convolution among its numbered
    layers.
    """
    table: dict[str, Target] = {}
    for level in range(config.levels):
        outermost, innermost = level == 0, level == config.levels - 1
        prefix = "model" if outermost else "model.model.1" + ".model.3" * (level - 1)
        down, up = (0, 3) if outermost else (1, 3) if innermost else (1, 5)
        for part, index in (("down", down), ("up", up)):
            name, path = f"{prefix}.model.{index}", f"{part}.{level}"
            axes = CONV_AXES if part == "down" else UP_CONV_AXES
            table[f"{name}.weight"] = Target(f"{path}.kernel", axes, flipped=part == "up")
            table[f"{name}.bias"] = Target(f"{path}.bias")
    return table


def is_anime2sketch(source: TensorSource) -> bool:
    """Whether a weight file is the published extractor's, from its names."""
    return any(name.removeprefix(PARALLEL_PREFIX).startswith("model.model.1.model.3.") for name in source.shapes)


def load_anime2sketch(
    path: Path, config: Anime2SketchConfig | None = None, *, dtype: Dtype = np.float32
) -> dict[str, np.ndarray]:
    """The extractor's parameters from the published file or from one that `convert_anime2sketch` wrote.

    Args:
      path: netG.pth (needs the extra `convert`) or a .safetensors file, with or without `module.` before its names.
      config: the architecture; the published one by default.
      dtype: of the parameters.

    Returns:
      Our paths and layouts.

    Raises:
      UserError: if the file is missing or damaged, or tensors are missing, left over or misshaped; all of them are named.
    """
    network = Network(Anime2Sketch, config or Anime2SketchConfig())
    source = open_anime2sketch(path)
    if path.suffix == ".safetensors" and network_kind(path) is not None:
        return {name: value.astype(np.dtype(dtype)) for name, value in read_network(path, KIND, network).items()}
    return map_tensors(source, name_table(network.config), network, dtype=dtype)


def convert_anime2sketch(
    source: Path,
    destination: Path,
    config: Anime2SketchConfig | None = None,
    *,
    dtype: Dtype = np.float32,
    overwrite: bool = False,
) -> int:
    """Converts the published file into one safetensors file of ours, which is read without torch.

    Args:
      source: netG.pth (needs the extra `convert`) or a .safetensors file.
      destination: the file to write; its name ends in .safetensors.
      config: the architecture; the published one by default.
      dtype: of the parameters written.
      overwrite: whether an existing file is replaced.

    Returns:
      How many tensors were written.

    Raises:
      UserError: if the file cannot be read or does not fit, or the destination cannot be written.
    """
    params = load_anime2sketch(source, config, dtype=dtype)
    write_network(destination, KIND, params, {"converted_from": source.name}, overwrite=overwrite)
    return len(params)


def open_anime2sketch(path: Path) -> TensorSource:
    """Opens a weight file with the names of a model that is not wrapped.

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

    def read(self, name: str) -> np.ndarray:
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

    def read(self, name: str) -> np.ndarray:
        """The tensor of this name, float32."""
        return self._tensors[name].detach().contiguous().float().numpy()
