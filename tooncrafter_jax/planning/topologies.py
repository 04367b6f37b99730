"""Machines that a program can be compiled for without being there: TPU slices, and simulated CPU devices."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import jax

from tooncrafter_jax.errors import UserError, missing_extra
from tooncrafter_jax.nn.platform import Platform
from tooncrafter_jax.typing import Device


@dataclass(frozen=True)
class Chip:
    """What a chip can do, by the manufacturer's tables.

    Attributes:
      memory: of the accelerator, bytes.
      flops: largest bfloat16 throughput, a second.
      bandwidth: of its memory, bytes a second.
      link: to its neighbours, all links together and in one direction, bytes a second.
      compiler_name: what the TPU compiler calls the generation.
      axes: of a slice.
    """

    memory: float
    flops: float
    bandwidth: float
    link: float
    compiler_name: str
    axes: int


CHIPS = {
    "v5e": Chip(16e9, 197e12, 819e9, 200e9, "v5e", 2),
    "v5p": Chip(95e9, 459e12, 2765e9, 600e9, "v5", 3),
    "v6e": Chip(32e9, 918e12, 1638e9, 400e9, "v6e", 2),
}
"""Sources: the pages "TPU v5e", "TPU v5p" and "TPU v6e" of the Cloud TPU documentation; links are 1600, 4800 and 3200
Gbit/s.
"""

MAX_CPU_DEVICES = 4096


@dataclass(frozen=True)
class Topology:
    """A machine that is compiled for.

    Attributes:
      name: as the user wrote it.
      chip: None for simulated CPU devices.
      devices: how many, in all slices together.
      slices: TPU slices that a slower network connects.
    """

    name: str
    chip: Chip | None
    devices: int
    slices: int = 1

    @property
    def platform(self) -> Platform:
        """What is traced for."""
        return "tpu" if self.chip else "cpu"


def parse_topology(text: str) -> Topology:
    """The topology of a text such as "v5e:4x8", "v5p:4x4x4", "2xv5e:8x8" (two slices) or "cpu:8".

    Raises:
      UserError: the text is malformed or names no known machine.
    """
    kind, _, shape = text.partition(":")
    if kind == "cpu":
        if not re.fullmatch(r"[1-9]\d*", shape) or int(shape) > MAX_CPU_DEVICES:
            raise UserError(f"--topology is '{text}', but simulated devices are asked for by a number, as in cpu:8")
        return Topology(text, None, int(shape))
    counted = re.fullmatch(r"([1-9]\d*)x(\w+)", kind)
    slices, kind = (int(counted[1]), counted[2]) if counted else (1, kind)
    if kind not in CHIPS:
        raise UserError(
            f"--topology is '{text}', which names no known machine: choose one of {', '.join(CHIPS)} or cpu"
        )
    chip = CHIPS[kind]
    if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (chip.axes - 1), shape):
        example = {2: "4x8", 3: "4x4x4"}[chip.axes]
        raise UserError(
            f"--topology is '{text}', but a {kind} slice is given by {chip.axes} sides, as in {kind}:{example}"
        )
    return Topology(text, chip, slices * prod(int(side) for side in shape.split("x")), slices)


def has_tpu_compiler() -> bool:
    """Whether the extra `tpu` is installed."""
    return importlib.util.find_spec("libtpu") is not None


def topology_devices(topology: Topology) -> list[Device]:
    """Devices to compile for; none of them can run anything, unless they are CPU devices.

    Raises:
      UserError: the TPU compiler is not installed or knows no such slice, or JAX was started with fewer CPU devices.
    """
    if topology.chip is None:
        return _cpu_devices(topology)
    if not has_tpu_compiler():
        raise missing_extra("libtpu", "tpu", f"compiling for {topology.name}")
    from jax.experimental import topologies

    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # else a second process dies on the compiler's lock file
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # it would ask the network what machine this is
    _only_cpu()
    name = f"{topology.chip.compiler_name}:{topology.name.partition(':')[2]}"
    several = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        found: Sequence[Device] = topologies.get_topology_desc(platform="tpu", topology_name=name, **several).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        raise UserError(f"the TPU compiler knows no slice '{topology.name}': {str(error).splitlines()[0]}") from error
    if len(found) != topology.devices:
        raise UserError(f"the TPU compiler sees {len(found)} devices in '{topology.name}', not {topology.devices}")
    return list(found)


def _cpu_devices(topology: Topology) -> list[Device]:
    _only_cpu()
    try:
        jax.config.update("jax_num_cpu_devices", topology.devices)
    except RuntimeError:
        pass  # JAX has started already; what counts is how many devices it has
    found = jax.devices("cpu")
    if len(found) < topology.devices:
        raise UserError(f"--topology is '{topology.name}', but JAX was started with {len(found)} CPU devices here")
    return list(found[: topology.devices])


def _only_cpu() -> None:
    """Keeps JAX from taking hold of accelerators that this machine may have, also where `JAX_PLATFORMS` names only
    them.
    """
    jax.config.update("jax_platforms", "cpu")
