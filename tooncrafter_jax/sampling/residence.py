"""Where a model's parameters are while it draws: all on the devices, or only those of the part that is at work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.model_loading import replicated
from tooncrafter_jax.typing import AllParams, AnyArray, Device, DeviceParams, HostArray, HostParams, Params

Memory = Literal["high", "low"]
"""How much of a device's memory a model takes."""
MEMORY: tuple[Memory, ...] = get_args(Memory)


def checked_memory(memory: str) -> Memory:
    """The value, if it is one of `MEMORY`.

    Raises:
      UserError: it is not.
    """
    for known in MEMORY:
        if memory == known:
            return known
    raise UserError(f"memory is {memory!r}: choose one of {', '.join(MEMORY)}")


class Residence:
    """The parameters of a model, which its parts ask for by component.

    With "high" all are on the devices, all the time. With "low" they lie in the host's memory, and those that a part
    of sampling asks for take the place of those that were on the devices before: the towers leave them when their
    tokens are made, the denoiser before frames are decoded. Moving a component costs what its bytes need on the way.
    Of several threads each keeps what it works with until it is done.

    Args:
      params: component -> flat parameters; with "high" they are put on all devices, unless they are there.
      devices: what the model runs on.
      memory: see above.

    Attributes:
      memory: as given.
      params: component -> flat parameters; with "low" on the host.
    """

    def __init__(self, params: AllParams, devices: Sequence[Device], memory: Memory = "high") -> None:
        self.memory, self._devices = memory, list(devices)
        self.params: AllParams = {name: self._own(own) for name, own in params.items()}
        self._placed: dict[Mesh | None, dict[str, DeviceParams]] = {}
        self._lock = threading.RLock()

    def add(self, component: str, params: Params) -> None:
        """Adds a component."""
        with self._lock:
            self.params = {**self.params, component: self._own(params)}

    def of(self, mesh: Mesh | None, *components: str) -> dict[str, DeviceParams]:
        """Parameters of these components, of those that there are, on a mesh of the devices; None is for a single one.

        One function's arguments must all speak of one mesh, so each mesh has names of its own for the same arrays.
        """
        wanted = [name for name in components if name in self.params]
        with self._lock:
            if self.memory == "low":
                kept = {name: value for name, value in self._placed.get(mesh, {}).items() if name in wanted}
                self._placed = {mesh: kept}
            placed = self._placed.setdefault(mesh, {})
            for name in wanted:
                if name not in placed:
                    placed[name] = self._put(self.params[name], mesh)
            return {name: placed[name] for name in wanted}

    def _own(self, params: Params) -> Params:
        return _on_host(params) if self.memory == "low" else self._put(params, None)

    def _put(self, params: Params, mesh: Mesh | None) -> DeviceParams:
        sharding = replicated(self._devices) if mesh is None else NamedSharding(mesh, PartitionSpec())
        return {path: jax.tree.map(partial(_whole, sharding=sharding), value) for path, value in params.items()}


def _on_host(params: Params) -> HostParams:
    return {path: jax.tree.map(np.asarray, value) for path, value in params.items()}


def _whole(value: AnyArray | HostArray, sharding: Sharding) -> AnyArray:
    """An array whole on each device; each process gives its own copy of the same values."""
    if isinstance(value, jax.Array):
        return jax.device_put(value, sharding)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)
