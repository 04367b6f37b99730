"""From official tensors to the flat parameters of our components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from flax import nnx

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import Dtype, HostArray, HostParams
from tooncrafter_jax.weights.official import (
    PREFIXES,
    Assignment,
    LevelLayout,
    assign,
    component_of,
    reason_never_used,
    to_our_layout,
)
from tooncrafter_jax.weights.sources import TensorSource
from tooncrafter_jax.weights.spellings import respelled

_COMPUTED = 2e-6
"""How far buffers computed with other libraries are apart; relative for numbers above 1."""
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""By which part of itself a number of a checkpoint's schedule buffers may be rounded, by dtype: half precision has 11
and 8 digits. Sampling uses the computed ones in any case.
"""


@dataclass(frozen=True)
class MappedSource:
    """A source whose every tensor has been assigned.

    Attributes:
      source: the tensors.
      assignment: what becomes of each.
      components: the components that it fills.
    """

    source: TensorSource
    assignment: Assignment
    components: tuple[str, ...]

    def params(self, component: str, dtype: Dtype | None = np.float32) -> HostParams:
        """The flat parameters of one component; see `iterate`."""
        return dict(self.iterate(component, dtype))

    def iterate(self, component: str, dtype: Dtype | None = np.float32) -> Iterator[tuple[str, HostArray]]:
        """Path and value of each parameter of a component, contiguous, converted to `dtype` (None keeps the file's).

        Raises:
          UserError: a value does not fit the dtype.
        """
        for name, (owner, path) in self.assignment.entries.items():
            if owner != component:
                continue
            value = to_our_layout(path, self.source.read(name))
            wanted = value.dtype if dtype is None else dtype
            yield path, in_dtype(value, wanted, f"{component}.{path} of {self.source.where}")


def in_dtype(value: HostArray, dtype: Dtype, where: str) -> HostArray:
    """An array of this dtype, row-major.

    Args:
      value: the numbers.
      dtype: of numpy.
      where: what they are, for messages.

    Raises:
      UserError: a value does not fit the dtype.
    """
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(value, dtype=np.dtype(dtype))
    except FloatingPointError as error:
        raise UserError(
            f"{where} has values that {np.dtype(dtype)} does not hold: store it in another dtype"
        ) from error


def components_in(source: TensorSource) -> tuple[str, ...]:
    """Which components a file is for, from its names in whatever spelling.

    Raises:
      UserError: if the names belong to no ToonCrafter file.
    """
    names = [name for name in respelled(source).shapes if reason_never_used(name) is None]
    owners = {found[0] for found in map(component_of, names) if found is not None}
    if not owners:
        raise UserError(f"{source.where} holds no component of a ToonCrafter model: name another file")
    return tuple(component for component in PREFIXES if component in owners)


def map_source(
    source: TensorSource,
    config: ModelConfig,
    components: Iterable[str] | None = None,
    networks: Mapping[str, Network[nnx.Module]] | None = None,
) -> MappedSource:
    """Assigns every tensor of a source to a parameter of `config`'s components.

    Args:
      source: the tensors, in whatever spelling (`spellings`).
      config: the architecture.
      components: what the source must fill; by default what its names speak of.
      networks: component -> network; by default those of `config`.

    Raises:
      UserError: if tensors are missing, left over or misshaped, or a schedule buffer is not the
        computed one.
    """
    source = respelled(source)
    wanted = tuple(components) if components is not None else components_in(source)
    networks = config.networks() if networks is None else networks
    targets = {name: {path: leaf.shape for path, leaf in networks[name].abstract_params.items()} for name in wanted}
    layouts = {
        name: LevelLayout(len(part.multipliers), part.blocks_per_level)
        for name, part in (
            ("unet", config.unet),
            ("autoencoder", config.decoder),
            ("sketch_encoder", config.sketch_encoder),
        )
    }
    assignment = assign(source.shapes, targets, **layouts, where=source.where)
    check_buffers(source, assignment, NoiseSchedule(config.schedule))
    return MappedSource(source, assignment, wanted)


def check_buffers(source: TensorSource, assignment: Assignment, schedule: NoiseSchedule) -> None:
    """Checks that the schedule stored in a checkpoint is the one that will be used (spec section 1).

    Raises:
      UserError: if a buffer differs by more than rounding.
    """
    computed = schedule.buffers()
    for name in assignment.buffers:
        if name not in computed:
            raise UserError(
                f"{source.where} holds the schedule buffer {name}, which this schedule does not have: "
                "name the architecture of this model"
            )
        expected = computed[name]
        if tuple(source.shapes[name]) != expected.shape:
            raise UserError(
                f"the schedule buffer {name} of {source.where} has {prod(source.shapes[name])} entries instead of "
                f"{expected.size}: name the architecture of this model"
            )
        stored = source.read(name)
        error, size = np.abs(stored.astype(np.float64) - expected), np.maximum(1.0, np.abs(expected))
        allowed = _COMPUTED * size + _ROUNDING.get(str(stored.dtype), 0.0) * np.abs(expected)
        if not (error <= allowed).all():  # nor is it a number
            raise UserError(
                f"the schedule buffer {name} of {source.where} differs from the schedule of the config by "
                f"{(error / size).max():.2g}; this model was trained with other diffusion constants: "
                "name the architecture of this model"
            )
