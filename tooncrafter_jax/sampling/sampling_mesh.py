"""How the devices of a process are laid out to sample on: clips first, then the frames of a clip."""

from __future__ import annotations

from math import gcd, prod

import numpy as np
from jax.sharding import AxisType, Mesh

from tooncrafter_jax.nn.logical_axes import MeshAxes
from tooncrafter_jax.typing import Device


def sampling_mesh(devices: list[Device], rows: int, frames: int) -> Mesh | None:
    """Lays devices out for `rows` independent clips (pairs times guidance branches) of `frames` frames.

    Rows come first (axis `data`); devices left over share the frames of a clip. Those have one mesh axis for each prime
    factor (`frames_0`, `frames_1`, ...), so that a clip of 14 frames can use some of the devices that 16 frames use.

    Returns:
      The mesh, or None for a single device.
    """
    if len(devices) == 1:
        return None
    data = gcd(len(devices), rows)
    factors = prime_factors(gcd(len(devices) // data, frames))
    shape = (data, *factors, len(devices) // (data * prod(factors)))
    names = ("data", *(f"frames_{i}" for i in range(len(factors))), "idle")
    return Mesh(np.asarray(devices).reshape(shape), names, axis_types=(AxisType.Auto,) * len(names))


def prime_factors(number: int) -> list[int]:
    """Prime factors in ascending order; none for 1."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors


def mesh_rules(mesh: Mesh) -> dict[str, MeshAxes]:
    """Meaning of the models' logical axes while sampling: temporal attention trades its frames for pixels."""
    over_frames = tuple(name for name in mesh.axis_names if name.startswith("frames_"))
    return {"batch": "data", "frames": over_frames, "pixels": over_frames}
