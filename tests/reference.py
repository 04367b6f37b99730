"""The reference numbers of the tiny model, and networks with weights made by rule."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.weights.loading import MappedSource, map_source
from tooncrafter_jax.weights.official import SCHEDULE_BUFFERS
from tooncrafter_jax.weights.rule import make, unit_noise

GOLDEN = Path(__file__).parent / "golden"

NETWORK_TOLERANCE = 2e-5
"""Largest difference of a float32 network from the reference, in standard deviations of the reference array.

The reference itself is within 4e-6 of its network in float64, and moves as much with its batch size; the rest is the
order of summation. A wrong epsilon, GELU or routing shows at 1e-4 or more.
"""


class RuleSource:
    """Tensors made by the weight rule, for a list of names and shapes.

    Args:
      shapes: name -> shape.
      where: for messages.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], where: str = "the weight rule") -> None:
        self.where, self.shapes = where, dict(shapes)

    def read(self, name: str) -> np.ndarray:
        """The tensor of this name, float32."""
        return make(name, self.shapes[name])


@cache
def golden(file: str) -> dict[str, np.ndarray]:
    """The arrays of one file of reference numbers."""
    with np.load(GOLDEN / "tiny" / f"{file}.npz") as arrays:
        return dict(arrays)


@cache
def key_list(file: str) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape of a list below tests/golden, in order."""
    rows = [line.split("\t") for line in (GOLDEN / file).read_text().splitlines()]
    return {name: tuple(int(n) for n in sizes.split(",") if n) for name, sizes, _ in rows}


@cache
def _tiny_source(file: str) -> MappedSource:
    shapes = {name: shape for name, shape in key_list(f"tiny/{file}").items() if name not in SCHEDULE_BUFFERS}
    if file == "sketch_keys.tsv":  # its own file has no prefix, the weight rule gives it one
        shapes = {f"control_model.{name}": shape for name, shape in shapes.items()}
    return map_source(RuleSource(shapes), tiny())


@cache
def tiny_params(component: str) -> dict[str, jax.Array]:
    """The parameters of a component of the tiny model, made by the weight rule; of its motion network, which the
    reference does not have, noise.
    """
    if component == "motion":
        return noise_params(tiny().networks()[component])
    source = _tiny_source("sketch_keys.tsv" if component == "sketch_encoder" else "keys.tsv")
    return {path: jnp.asarray(value) for path, value in source.iterate(component)}


def noise_params(network: AnyNetwork, gain: float = 1.0) -> dict[str, jax.Array]:
    """Parameters of a usual size for a network that has no reference; zero-initialised layers get noise too."""

    def value(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path.endswith("kernel"):
            return unit_noise(path, shape) * np.float32(gain * prod(shape[:-1]) ** -0.5)
        return unit_noise(path, shape) * np.float32(0.1) + np.float32(path.endswith("scale"))

    return {path: jnp.asarray(value(path, leaf.shape)) for path, leaf in network.abstract_params.items()}


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The input `name` of a reference case, (B, C, T, h, w) or (T, C, h, w), with its channels moved to the end."""
    value = unit_noise(name, shape)
    return np.moveaxis(value, 1, -1) if value.ndim > 3 else value


def channels_first(x: Any) -> np.ndarray:
    """(B T h w C) to (B C T h w), or (T h w C) to (T C h w): the layout of the reference."""
    return np.moveaxis(np.asarray(x), -1, 1)


def deviation(ours: Any, reference: np.ndarray) -> float:
    """Largest difference in standard deviations of the reference; arrays of different shape are an error."""
    ours = np.asarray(ours)
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float(np.abs(ours - reference).max() / reference.std())


def as_jax(values: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """A dict of numpy arrays on the default device."""
    return {name: jnp.asarray(value) for name, value in values.items()}
