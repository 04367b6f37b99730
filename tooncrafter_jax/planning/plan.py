"""Plans a training or sampling step: compiles it for devices that need not be there, and reports what it would take."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, Sharding

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.unet_blocks import TEXT_TOKENS
from tooncrafter_jax.nn.attention import check_backend
from tooncrafter_jax.nn.platform import tracing_for, without_cpu_forms
from tooncrafter_jax.planning import hlo_report
from tooncrafter_jax.planning.hlo import parse_program
from tooncrafter_jax.planning.hlo_report import Buffer, Collective
from tooncrafter_jax.planning.topologies import Topology, topology_devices
from tooncrafter_jax.runtime.flops import Flops, forward_flops, step_flops
from tooncrafter_jax.runtime.quick_compilation import quick_options
from tooncrafter_jax.training.components import split
from tooncrafter_jax.training.hints import hints_spec
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.run_mesh import run_mesh
from tooncrafter_jax.training.sharding import batch_sharding, bytes_a_device, check_batch, check_frames, process_rows
from tooncrafter_jax.training.stages import Stage, make_stage
from tooncrafter_jax.training.stages.stage import Batch
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.training.state import AbstractState, abstract_state
from tooncrafter_jax.training.step import make_step
from tooncrafter_jax.typing import Dtype, Params, PyTree, Scalar

LARGEST = 10
"""Buffers that are listed."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
      arguments: kind -> bytes, by the shardings of what the step is given.
      argument, output, alias, temp: as the compiler lays them out; `alias` is shared by arguments and outputs.
      peak: of all that is there at one time.
    """

    arguments: dict[str, int]
    argument: int
    output: int
    alias: int
    temp: int
    peak: int


@dataclass(frozen=True)
class Seconds:
    """Time of a step if one resource were all that limits it; a step takes at least the longest of them.

    Attributes:
      compute: by the chip's bfloat16 throughput.
      memory: by the bandwidth of its memory, if everything that is not fused goes through it.
      network: by its links.
    """

    compute: float
    memory: float
    network: float

    @property
    def least(self) -> float:
        """If all three overlap perfectly."""
        return max(self.compute, self.memory, self.network)


@dataclass(frozen=True)
class Plan:
    """What a step takes.

    Attributes:
      step: "training" or "sampling".
      topology: what it was compiled for.
      mesh: axis -> size.
      batch: clips of a step.
      fits: whether the compiler could place it, and its peak is within the chip's memory; None for simulated devices.
      refusal: the compiler's words if it could not; then all that needs the compiled program is None.
      arguments: kind -> bytes a device.
      memory: bytes a device.
      minimum: operations of all devices that the mathematics needs, see `runtime.flops`.
      flops: matrix products, convolutions and attention kernels of the compiled program, all devices; of branches all
        sides, though one of them runs, and so in `seconds`.
      collectives: by kind, of one device.
      largest: results of instructions.
      seconds: roofline; None for simulated devices.
      compile_seconds: how long compiling took here.
    """

    step: str
    topology: Topology
    mesh: dict[str, int]
    batch: int
    fits: bool | None
    refusal: str
    arguments: dict[str, int]
    memory: Memory | None
    minimum: Flops
    flops: float | None
    collectives: dict[str, Collective]
    largest: list[Buffer]
    seconds: Seconds | None
    compile_seconds: float


def plan_training(config: TrainConfig, topology: Topology) -> Plan:
    """Compiles the training step of a config for a topology.

    Raises:
      UserError: the mesh or batch does not divide, the config cannot be used, or the TPU compiler is not installed.
    """
    if config.remat == "offload" and topology.chip is None:
        raise UserError("config.remat 'offload' needs a TPU: choose 'blocks', or another --topology than cpu")
    check_attention(config, topology)
    model = architecture(config)
    mesh = planned_mesh(config, model, topology)
    stage = make_stage(config, model, mesh)
    state, batch = abstract_state(stage), abstract_batch(stage, config.data.batch, batch_sharding(mesh))
    arguments = argument_bytes(state, batch, mesh)
    minimum = minimum_flops(make_stage(config, model))
    step = make_step(stage, mesh)
    with jax.set_mesh(mesh), tracing_for(topology.platform):
        lowered = cast(jax.stages.Wrapped, step).lower(state, batch)
    return compiled_plan("training", topology, mesh, config.data.batch, lowered, arguments, minimum)


def check_attention(config: TrainConfig, topology: Topology) -> None:
    """Checks that the topology's devices have the attention that the config asks for.

    Raises:
      UserError: they have not.
    """
    with tracing_for(topology.platform):
        check_backend(config.attention, config.dtype, "config.attention")


def planned_mesh(config: TrainConfig, model: ModelConfig, topology: Topology) -> Mesh:
    """The mesh of a run on a topology, checked.

    Raises:
      UserError: the mesh does not fit the topology, or the batch or the frames do not fit the mesh.
    """
    devices = topology_devices(topology)
    mesh = run_mesh(config, model, devices, topology.chip and topology.chip.memory)
    check_batch(config.data.batch, config.accumulation, mesh)
    check_frames(config.data.frames, mesh)
    return mesh


def host_rows(config: TrainConfig, topology: Topology) -> tuple[Mesh, dict[int, list[int]]]:
    """The mesh of a run on a topology, and the rows of every global batch that each host loads there, by its number.

    Raises:
      UserError: as `planned_mesh`.
    """
    mesh = planned_mesh(config, architecture(config), topology)
    hosts = sorted({device.process_index for device in mesh.devices.flat})
    return mesh, {host: process_rows(mesh, config.data.batch, host).tolist() for host in hosts}


def latent_shape(config: TrainConfig, model: ModelConfig) -> tuple[int, int, int, int]:
    """(T, h, w, C) of a clip's latents."""
    shrink = model.autoencoder.downscaling
    return config.data.frames, config.data.height // shrink, config.data.width // shrink, model.unet.out_channels


def abstract_batch(
    stage: Stage, clips: int, sharding: Sharding | None = None, *, evaluation: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global batch of `clips`, as the trainer gives it to the step, or to validation and samples, which
    read pixels.
    """
    config, model = stage.config, stage.model
    frames, height, width = config.data.frames, config.data.height, config.data.width

    def rows(dtype: Dtype, *sides: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((clips, *sides), dtype, sharding=sharding)

    batch = {
        "token_ids": rows(jnp.int32, TEXT_TOKENS),
        "drop_image": rows(jnp.bool_),
        "fps": rows(jnp.int32),
        "sketched": rows(jnp.bool_, frames),
        "seed": rows(jnp.uint32),
        "valid": rows(jnp.bool_),
    }
    video = rows(jnp.uint8, frames, height, width, 3)
    embedded = bool(config.data.embeddings) and not evaluation
    if not embedded or config.data.video or stage.needs_pixels:
        batch["video"] = video
    if embedded:
        *sides, channels = latent_shape(config, model)
        patches = (model.clip_image.image_size // model.clip_image.patch_size) ** 2
        batch["moments"] = rows(jnp.float16, *sides, 2 * channels)
        batch["text"] = rows(jnp.float16, TEXT_TOKENS, model.clip_text.width)
        batch["image"] = rows(jnp.float16, patches + 1, model.clip_image.width)
    if stage.is_guided:
        batch["hints"] = rows(jnp.float32, frames, height, width, 1)
        if isinstance(sharding, NamedSharding):
            place = NamedSharding(sharding.mesh, hints_spec(sharding.mesh, clips, frames))  # pyright: ignore
            batch["hints"] = jax.ShapeDtypeStruct(batch["hints"].shape, jnp.float32, sharding=place)
    return batch


def argument_bytes(state: AbstractState, batch: PyTree, mesh: Mesh) -> dict[str, int]:
    """Kind -> bytes that one device holds of a training step's arguments."""
    kinds = ("trained", "frozen", "optimizer", "average")
    found = {kind: bytes_a_device(getattr(state, kind), mesh) for kind in kinds}
    found["counters"] = 4 * 3
    found["batch"] = bytes_of(batch)
    return found


def bytes_of(tree: PyTree) -> int:
    """Of one device."""
    return sum(
        prod(leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def minimum_flops(stage: Stage) -> Flops:
    """What a step needs at least on all devices together; see `runtime.flops`.

    Stages with the gradients of a plain loss are counted in their forward pass. For the others, which pull back one
    reconstruction several times, the traced gradients themselves are counted, all under `forward`.

    Args:
      stage: made without a mesh.
    """
    state, clips = abstract_state(stage), stage.config.data.batch
    trained, frozen = split(state.params, stage.is_trained)
    step = jnp.zeros((), jnp.int32)

    def of_clips(count: int) -> Flops:
        batch = abstract_batch(stage, count)
        if type(stage).gradients is Stage.gradients:

            def loss(some: Params, rest: Params, rows: Batch) -> Scalar:
                return stage.loss({**some, **rest}, rows, jax.random.key(0))[0]

            return step_flops(loss, trained, frozen, batch)
        found = forward_flops(lambda p, b: stage.gradients(p, b, jax.random.key(0), step), state.params, batch)
        return Flops(forward=found)

    with tracing_for("cpu"), without_cpu_forms():
        one, two = of_clips(1), of_clips(2)
    return one + (clips - 1) * (two + -1.0 * one)


def compiled_plan(
    step: str,
    topology: Topology,
    mesh: Mesh | None,
    batch: int,
    lowered: jax.stages.Lowered,
    arguments: dict[str, int],
    minimum: Flops,
) -> Plan:
    """Compiles and reads the result."""
    chip = topology.chip
    known: dict[str, Any] = {"step": step, "topology": topology, "batch": batch, "arguments": arguments}
    known |= {"mesh": {} if mesh is None else dict(mesh.shape), "minimum": minimum}
    compiled, refused, taken = compile_for(topology, lowered)
    if compiled is None:
        nothing: dict[str, Any] = {"memory": None, "flops": None, "collectives": {}, "largest": [], "seconds": None}
        return Plan(**known, **nothing, fits=False, refusal=refused, compile_seconds=taken)
    memory = laid_out(compiled, arguments)
    program = parse_program(compiled.as_text() or "")
    flops, exchanged = hlo_report.program_flops(program), hlo_report.collectives(program)
    seconds = None
    if chip:
        traffic = sum(one.traffic for one in exchanged.values())
        memory_seconds = hlo_report.memory_traffic(program) / chip.bandwidth
        seconds = Seconds(flops / chip.flops, memory_seconds, traffic / chip.link)
    return Plan(
        **known,
        fits=memory.peak <= chip.memory if chip else None,
        refusal="",
        memory=memory,
        flops=flops * topology.devices,
        collectives=exchanged,
        largest=hlo_report.largest_buffers(program, LARGEST),
        seconds=seconds,
        compile_seconds=taken,
    )


def compile_for(topology: Topology, lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled | None, str, float]:
    """(the compiled program, or None where the compiler could not place it; its words then, seconds that it took)."""
    started = time.monotonic()
    try:
        options = cast("dict[str, str | bool]", quick_options()) if topology.chip else None
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None, refusal(str(error)), time.monotonic() - started
    return compiled, "", time.monotonic() - started


def laid_out(compiled: jax.stages.Compiled, arguments: dict[str, int]) -> Memory:
    """What the compiler says of a program's memory, beside the bytes of its arguments by kind."""
    stats = compiled.memory_analysis()
    assert stats is not None
    argument, output = stats.argument_size_in_bytes, stats.output_size_in_bytes
    alias, temp = stats.alias_size_in_bytes, stats.temp_size_in_bytes
    return Memory(arguments, argument, output, alias, temp, argument + output - alias + temp)


def refusal(message: str) -> str:
    """The sentence of the compiler's message that says how much memory is missing."""
    found = re.search(r"Used [\d.]+\w? of [\d.]+\w? hbm[^\n]*", message)
    return found[0] if found else message.splitlines()[0]
