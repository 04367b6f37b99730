"""The published weights of the sketch extractor Anime2Sketch: their names, layouts and files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import Dtype, HostParams
from tooncrafter_jax.weights.sources import TensorSource
from tooncrafter_jax.zoo.anime2sketch.network import Anime2Sketch, Anime2SketchConfig
from tooncrafter_jax.zoo.network_file import (
    CONV_AXES,
    UP_CONV_AXES,
    Target,
    convert_network,
    map_tensors,
    network_kind,
    read_network,
)
from tooncrafter_jax.zoo.saved_modules import PARALLEL_PREFIX, open_saved_module

KIND = "anime2sketch"


def name_table(config: Anime2SketchConfig) -> dict[str, Target]:
    """Official name -> our path and layout, for every tensor.

    The official levels are nested: each holds its down convolution, the next level and its up convolution among its
    numbered layers.
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


def load_anime2sketch(path: Path, config: Anime2SketchConfig | None = None, *, dtype: Dtype = np.float32) -> HostParams:
    """The extractor's parameters from the published file or from one that `convert_anime2sketch` wrote.

    Args:
      path: netG.pth or a .safetensors file, with or without `module.` before its names.
      config: the architecture; the published one by default.
      dtype: of the parameters.

    Returns:
      Our paths and layouts.

    Raises:
      UserError: if the file is missing or damaged, tensors are missing, left over or misshaped, or a value does not fit
        the dtype.
    """
    network = Network(Anime2Sketch, config or Anime2SketchConfig())
    source = open_saved_module(path)
    if path.suffix.lower() == ".safetensors" and network_kind(path) is not None:
        return read_network(path, KIND, network, dtype=dtype)
    return map_tensors(source, name_table(network.config), network, dtype=dtype)


convert_anime2sketch = partial(convert_network, load_anime2sketch, KIND)
"""Converts netG.pth, or the same as .safetensors, into one file; arguments from `source` on as of
`convert_network`; see `load_anime2sketch`.
"""
