"""The published weights of the text detector CRAFT: their names, layouts and files."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import Dtype, HostArray, HostParams
from tooncrafter_jax.weights.sources import TensorSource
from tooncrafter_jax.zoo.craft.network import Craft, CraftConfig
from tooncrafter_jax.zoo.network_file import (
    CONV_AXES,
    Target,
    check_tensors,
    convert_network,
    map_tensors,
    network_kind,
    read_network,
)
from tooncrafter_jax.zoo.saved_modules import open_saved_module

KIND = "craft"
NORM_LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
COUNTER = "num_batches_tracked"
"""Of each normalisation, how often its moments were updated: nothing depends on it, and files from before PyTorch 0.4.1
lack it.
"""
SLICE_STARTS = (12, 19, 29)
"""At which of VGG-16's numbered layers the published backbone's second, third and fourth slices begin; each begins with
a ReLU.
"""
DILATED_SLICE = "basenet.slice5"
"""The backbone's last slice, behind VGG-16's layers: a pooling, and two convolutions that no other VGG has."""


def name_table(config: CraftConfig) -> dict[str, Target]:
    """Official name -> our path and layout, for every tensor but the counters."""
    table: dict[str, Target] = {}
    for official, path in _convs(config):
        table[f"{official}.weight"] = Target(f"{path}.kernel", CONV_AXES)
        table[f"{official}.bias"] = Target(f"{path}.bias")
    for official, path in _norms(config):
        table |= {f"{official}.{theirs}": Target(f"{path}.{ours}") for theirs, ours in NORM_LEAVES.items()}
    return table


def counters(config: CraftConfig) -> list[str]:
    """Official names of the tensors that have no place in our network."""
    return [f"{official}.{COUNTER}" for official, _ in _norms(config)]


def _normalised(config: CraftConfig) -> Iterator[tuple[str, int, str]]:
    """The official container, the number in it and our path of every convolution that a normalisation follows."""
    number = 0
    for depth, convs in enumerate(config.convs):
        number += depth > 0  # a pooling
        for i in range(convs):
            yield f"basenet.slice{1 + bisect(SLICE_STARTS, number)}", number, f"levels.{depth}.{i}"
            number += 3  # convolution, normalisation, ReLU
    for i in range(len(config.ups)):
        yield f"upconv{i + 1}.conv", 0, f"ups.{i}.mix"
        yield f"upconv{i + 1}.conv", 3, f"ups.{i}.refine"


def _norms(config: CraftConfig) -> Iterator[tuple[str, str]]:
    """Official name and our path of every normalisation."""
    for container, number, path in _normalised(config):
        yield f"{container}.{number + 1}", f"{path}.norm"


def _convs(config: CraftConfig) -> Iterator[tuple[str, str]]:
    """Official name and our path of every convolution."""
    for container, number, path in _normalised(config):
        yield f"{container}.{number}", f"{path}.conv"
    yield f"{DILATED_SLICE}.1", "fc6"
    yield f"{DILATED_SLICE}.2", "fc7"
    for i in range(len(config.head) + 1):
        yield f"conv_cls.{2 * i}", f"head.{i}"


def is_craft(source: TensorSource) -> bool:
    """Whether a weight file is the published detector's, from its names."""
    return any(name.startswith(f"{DILATED_SLICE}.") for name in source.shapes)


def check_craft(path: Path, config: CraftConfig | None = None) -> None:
    """Does nothing if `load_craft` can read a file; of a published one only names and shapes are looked at.

    Raises:
      UserError: if not; see `load_craft`.
    """
    network = Network(Craft, config or CraftConfig())
    source = _open(path, network)
    if source is None:
        read_network(path, KIND, network)
    else:
        check_tensors(source, name_table(network.config), network)


def load_craft(path: Path, config: CraftConfig | None = None, *, dtype: Dtype = np.float32) -> HostParams:
    """The detector's parameters from the published file or from one that `convert_craft` wrote.

    Args:
      path: craft_mlt_25k.pth or a .safetensors file, with or without `module.` before its
        names.
      config: the architecture; the published one by default.
      dtype: of the parameters.

    Returns:
      Our paths and layouts.

    Raises:
      UserError: if the file is missing, damaged or of another network, tensors are missing, left over or misshaped, or
        a value does not fit the dtype.
    """
    network = Network(Craft, config or CraftConfig())
    source = _open(path, network)
    if source is None:
        return read_network(path, KIND, network, dtype=dtype)
    return map_tensors(source, name_table(network.config), network, dtype=dtype)


convert_craft = partial(convert_network, load_craft, KIND)
"""Converts craft_mlt_25k.pth, or the same as .safetensors, into one file; arguments from `source` on as of
`convert_network`; see `load_craft`.
"""


def _open(path: Path, network: Network[Craft]) -> TensorSource | None:
    """The tensors of a published file without its counters; None for a file of ours."""
    source = open_saved_module(path)
    if path.suffix.lower() == ".safetensors" and (kind := network_kind(path)) is not None:
        if kind != KIND:
            raise UserError(f"'{path}' holds {kind}, not the parameters of {KIND}: name another file")
        return None
    if not is_craft(source):
        raise UserError(
            f"'{path}' does not hold CRAFT, as it has no {DILATED_SLICE}: name the published craft_mlt_25k.pth"
        )
    return _Without(source, counters(network.config))


class _Without:
    """Another source without some of its tensors."""

    def __init__(self, source: TensorSource, names: list[str]) -> None:
        self.where, self._source = source.where, source
        self.shapes = {name: shape for name, shape in source.shapes.items() if name not in names}

    def read(self, name: str) -> HostArray:
        """The tensor of this name."""
        return self._source.read(name)
