"""The mesh of a run: the config's, or the one that suits the state and the devices."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.runtime.distributed import least_of_all_processes
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.sharding import automatic_mesh, make_mesh
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.state import abstract_state
from tooncrafter_jax.typing import Device


def run_mesh(
    config: TrainConfig, model: ModelConfig, devices: Sequence[Device] | None = None, memory: float | None = None
) -> Mesh:
    """The mesh that a config asks for; for "auto" see `sharding.automatic_mesh`.

    Args:
      config: of the run.
      model: the architecture.
      devices: of the run; all there are by default.
      memory: of a device in bytes; by default the least that any device of the run says it has, which a CPU does not
        say.

    Raises:
      UserError: see `sharding.make_mesh`.
    """
    if config.mesh != "auto":
        return make_mesh(config.mesh, devices)
    if devices is None:
        devices = jax.devices()
        memory = least_memory() if memory is None else memory
    if memory is None or len(devices) == 1:
        return make_mesh("auto", devices)
    return make_mesh(automatic_mesh(abstract_state(make_stage(config, model)), devices, memory), devices)


def least_memory() -> float | None:
    """Bytes of the smallest device's own memory, so that all hosts choose the same mesh; None where one does not tell.

    Every process must ask.
    """
    told = [device_memory(device) for device in jax.local_devices()]
    mebibytes = [-1 if memory is None else int(memory // 2**20) for memory in told]
    least = least_of_all_processes(min(mebibytes))
    return None if least < 0 else float(least * 2**20)


def device_memory(device: Device) -> float | None:
    """Bytes of a device's own memory; None where it does not tell, or has none of its own as a CPU."""
    if device.platform == "cpu":
        return None
    return (device.memory_stats() or {}).get("bytes_limit")
