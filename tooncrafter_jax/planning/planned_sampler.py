"""The sampler that plans compile for, its options and its devices."""

from __future__ import annotations

from typing import NamedTuple

import jax

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.planning.plan import check_attention
from tooncrafter_jax.planning.topologies import Topology, topology_devices
from tooncrafter_jax.sampling.request import make_options
from tooncrafter_jax.sampling.sampler import Sampler
from tooncrafter_jax.sampling.sampling_mesh import sampling_mesh
from tooncrafter_jax.sampling.sampling_options import SamplingOptions
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.typing import JsonObject, PyTree


class PlannedSampler(NamedTuple):
    """What samples on a topology.

    Attributes:
      sampler: of its devices.
      options: how it samples.
    """

    sampler: Sampler
    options: SamplingOptions


def planned_sampler(
    config: TrainConfig, topology: Topology, pairs: int, step: str, options: JsonObject | None
) -> PlannedSampler:
    """The sampler of `pairs` clips on the devices of a topology.

    Args:
      config: the architecture, and the size of a clip.
      topology: what to compile for.
      pairs: that are worked on together.
      step: "sampling", where guidance branches are clips of their own, or "decoding".
      options: how to sample, by the names of `SamplingOptions`; all others are as the published script has them.

    Raises:
      UserError: there are no pairs, no such option, attention or devices.
    """
    if pairs < 1:
        raise UserError(f"--{step} is {pairs}, but at least 1 pair is needed")
    check_attention(config, topology)
    model = architecture(config)
    size = {"frames": config.data.frames, "height": config.data.height, "width": config.data.width}
    how = make_options({**(options or {}), **size})
    how.check(model)
    devices = topology_devices(topology)
    rows = pairs if step == "decoding" or how.sequential_guidance else how.branches * pairs
    mesh = sampling_mesh(devices, rows, how.frames)
    networks = model.networks(config.dtype, config.dtype, config.attention)
    return PlannedSampler(Sampler(model, networks, mesh, devices[0]), how)


def placed(tree: PyTree, sampler: Sampler, *names: str) -> PyTree:
    """Shapes with their place on the devices; see `Sampler.layout`."""

    def of(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sampler.layout(leaf.shape, *names))

    return jax.tree.map(of, tree)
