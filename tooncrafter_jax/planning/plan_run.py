"""Plans a whole run: beside its step, what validation and samples take while the training's state stays where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import jax
from jax.sharding import NamedSharding, PartitionSpec

from tooncrafter_jax.nn.platform import tracing_for
from tooncrafter_jax.planning.plan import (
    Memory,
    Plan,
    abstract_batch,
    argument_bytes,
    compile_for,
    laid_out,
    plan_training,
    planned_mesh,
)
from tooncrafter_jax.planning.topologies import Topology
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.samples import make_sampling
from tooncrafter_jax.training.sharding import batch_sharding, tree_shardings
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.training.state import abstract_state
from tooncrafter_jax.training.step import make_validation
from tooncrafter_jax.typing import PyTree


@dataclass(frozen=True)
class Program:
    """One of a run's programs.

    Attributes:
      name: "step", "validation" or "samples".
      clips: that it works on at a time.
      memory: bytes a device; None where the compiler could not place it.
      beside: bytes a device that the run keeps meanwhile and the program is not given.
      refusal: the compiler's words if it could not place it.
      compile_seconds: how long compiling took here.
    """

    name: str
    clips: int
    memory: Memory | None
    beside: int
    refusal: str
    compile_seconds: float

    @property
    def peak(self) -> int | None:
        """Bytes of a device that are held while it runs."""
        return None if self.memory is None else self.memory.peak + self.beside


@dataclass(frozen=True)
class RunPlan:
    """What a run takes.

    Attributes:
      step: its step, in all detail.
      programs: the step, then validation and samples where the config asks for them.
    """

    step: Plan
    programs: tuple[Program, ...]

    @property
    def largest(self) -> Program:
        """The program that takes the most memory, one that could not be placed before all others."""
        return max(self.programs, key=lambda program: float("inf") if program.peak is None else program.peak)

    @property
    def fits(self) -> bool | None:
        """Whether every program fits the chip's memory beside what the run keeps; None for simulated devices."""
        chip, peak = self.step.topology.chip, self.largest.peak
        if chip is None:
            return None
        return peak is not None and peak <= chip.memory


def plan_run(config: TrainConfig, topology: Topology) -> RunPlan:
    """Compiles every program of a run for a topology.

    Raises:
      UserError: as `plan_training`.
    """
    step = plan_training(config, topology)
    model = architecture(config)
    mesh = planned_mesh(config, model, topology)
    stage = make_stage(config, model, mesh)
    state = abstract_state(stage)
    shardings = tree_shardings(state, mesh)
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state.averaged_params,
        shardings.averaged_params,
    )
    waiting = {"next batch": step.arguments["batch"]}  # it lies on the devices while a step runs
    held = step.arguments | waiting
    programs = [_program("step", config.data.batch, step.memory, held, step.refusal, step.compile_seconds)]

    def add(name: str, clips: int, sharding: NamedSharding, compiled_part: Callable[..., PyTree]) -> None:
        batch = abstract_batch(stage, clips, sharding, evaluation=True)
        arguments = argument_bytes(state, batch, mesh)
        with jax.set_mesh(mesh), tracing_for(topology.platform):
            lowered = cast(jax.stages.Wrapped, compiled_part).lower(params, batch)
        compiled, refused, taken = compile_for(topology, lowered)
        memory = None if compiled is None else laid_out(compiled, arguments)
        programs.append(_program(name, clips, memory, arguments, refused, taken))

    if config.validation:
        add("validation", config.data.batch, batch_sharding(mesh), make_validation(stage, mesh))
    if config.sample_every:
        add("samples", 1, NamedSharding(mesh, PartitionSpec()), make_sampling(stage, mesh))
    return RunPlan(step, tuple(programs))


def _program(
    name: str, clips: int, memory: Memory | None, held: dict[str, int], refused: str, seconds: float
) -> Program:
    """The compiler leaves out arguments that a program never reads; what the run holds stays where it is all the
    same.
    """
    beside = 0 if memory is None else max(0, sum(held.values()) - memory.argument)
    return Program(name, clips, memory, beside, refused, seconds)
