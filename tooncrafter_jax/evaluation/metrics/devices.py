"""Networks of metrics on all devices of a process."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from tooncrafter_jax.typing import AnyArray, HostArray, PyTree

_AXIS = "clips"


class OverLocalDevices:
    """A compiled function of clips whose batch is divided between this process's devices.

    As many devices work as divide the batch, so a batch should be a multiple of them. Other processes measure other
    batches.

    Args:
      step: (parameters, clips, ...) -> rows; what it gives for a clip must not depend on the other clips.
      params: of the network; kept on every device.
    """

    def __init__(self, step: Callable[..., AnyArray], params: PyTree = ()) -> None:
        self._step, self._params = step, params
        self._compiled: dict[tuple[int, int], tuple[Callable[..., AnyArray], PyTree]] = {}

    def __call__(self, *clips: Shaped[np.ndarray, "B ..."]) -> HostArray:
        """The rows of a batch; each of `clips` has the batch as its first axis."""
        devices = gcd(len(clips[0]), jax.local_device_count())
        compiled, params = self._on(devices, len(clips))
        return np.asarray(compiled(params, *clips))

    def _on(self, devices: int, arguments: int) -> tuple[Callable[..., AnyArray], PyTree]:
        """The compiled function and the parameters on so many devices, made once."""
        if (devices, arguments) not in self._compiled:
            self._compiled[devices, arguments] = self._spread(devices, arguments)
        return self._compiled[devices, arguments]

    def _spread(self, devices: int, arguments: int) -> tuple[Callable[..., AnyArray], PyTree]:
        if devices == 1:
            return jax.jit(self._step), jax.device_put(self._params, jax.local_devices()[0])
        mesh = Mesh(np.asarray(jax.local_devices()[:devices]), (_AXIS,))
        rows = PartitionSpec(_AXIS)
        spread = jax.shard_map(
            self._step,
            mesh=mesh,
            in_specs=(PartitionSpec(), *[rows] * arguments),
            out_specs=rows,
            check_vma=False,
        )
        return jax.jit(spread), jax.device_put(self._params, NamedSharding(mesh, PartitionSpec()))
