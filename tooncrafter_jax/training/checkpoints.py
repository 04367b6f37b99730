"""Checkpoints of a run: written in the background, whole or not at all, restored on any mesh and any number of hosts.

`WORKDIR/checkpoints/STEP` holds what a step changes, the data loader's state and the config. Frozen parameters come
from the run's start again, of which a fingerprint is kept. `WORKDIR/export` is a checkpoint directory for sampling, in
the format of `weights.store`; frozen parameters are in it as they are in the start, bit by bit.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.paths import AnyPath, GivenPath, any_path, remove_tree
from tooncrafter_jax.models.configuration import COMPONENTS, ModelConfig
from tooncrafter_jax.runtime.distributed import as_the_main_process_says, is_main_process, to_host
from tooncrafter_jax.training.components import of_component
from tooncrafter_jax.training.configuration import config_values, saved_values
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.sharding import tree_shardings
from tooncrafter_jax.training.stages import Stage
from tooncrafter_jax.training.start import SMALL, Start, component_holders
from tooncrafter_jax.training.state import State, TrainState, abstract_state, is_statistic
from tooncrafter_jax.typing import AnyArray, HostArray, JsonObject, Leaf, PyTree
from tooncrafter_jax.weights.lora import PREFIX, save_lora
from tooncrafter_jax.weights.store import CheckpointWriter

MAY_CHANGE = frozenset(
    "steps validation validate_every validation_batches max_skipped_steps mesh remat attention gradient_dtype "
    "log_every save_every sample_every keep_last keep_every accumulation start data.directory data.embeddings "
    "data.num_workers data.prefetch data.on_damaged sketch.weights joint.weights motion.weights distill.weights "
    "distill.steps".split()
)
"""What a run may be resumed with another value of: its length, what it tells, how it is computed, and where things lie
that it reads. Clips are known again by the loader's state, the start and the weights that draw sketches by
fingerprints.
"""

_START = "start"
_EXTRACTOR = "extractor"
"""Beside the components of the start, what stands for the weights of the extractor that draws sketches."""

_log = logging.getLogger(__name__)


class Resumed(NamedTuple):
    """Where a run goes on.

    Attributes:
      state: of the training.
      data: of the loader.
    """

    state: State
    data: dict[str, int]


class Checkpoints:
    """The checkpoints of a working directory.

    Args:
      workdir: of the run; the same on every host.
      stage: what is trained.
      read_only: writes and removes nothing, not even what looks cut off: a run may be writing it.
      extractor: stands for the weights of the extractor that draws the stage's sketches (`HintDrawing.fingerprint`);
        empty where none draws, and nothing is compared.

    Attributes:
      start: where the run begins.

    Raises:
      UserError: the directory belongs to a run with another config, or there is nothing to read, or the start cannot be
        used.
    """

    def __init__(self, workdir: GivenPath, stage: Stage, *, read_only: bool = False, extractor: str = "") -> None:
        config = stage.config
        self.workdir, self._stage, self._extractor = any_path(workdir), stage, extractor
        directory = self.workdir / "checkpoints"
        if read_only and not directory.is_dir():
            raise UserError(f"{self.workdir} has no checkpoint yet")
        self.start = Start(stage)
        self._check_start_is_elsewhere()
        self._frozen = {path for path in abstract_state(stage).frozen if not is_statistic(path)}
        _check_config(self.workdir, config, write=not read_only)
        if read_only:
            self._manager = ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(read_only=True))
            return
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.keep_last,
            keep_period=config.keep_every or None,
            enable_async_checkpointing=True,
        )
        cut_off = sorted(directory.glob("*.orbax-checkpoint-tmp*")) if directory.exists() else []
        if cut_off:
            _log.warning("ignoring %s, which was cut off while it was written", cut_off[-1].name)
        if jax.process_count() == 1:
            # Orbax would do so in a thread that outlives a manager which is closed at once, and takes what the next one
            # has just begun to write.
            for unfinished in cut_off:
                remove_tree(unfinished)
        self._manager = ocp.CheckpointManager(directory, options=options)

    @property
    def latest(self) -> int | None:
        """The newest step that was saved; None if none was."""
        return self._manager.latest_step()

    def save(self, state: State, data: Mapping[str, int], *, wait: bool = False) -> None:
        """Saves in the background; every process must call it.

        Args:
          state: of the training.
          data: the loader's state, the same on every process.
          wait: until it is on the disk.

        Raises:
          UserError: it cannot be written, e.g. because the disk is full; earlier checkpoints are as they were.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(_as_dict(_without(state, self._frozen))),
                    data=ocp.args.JsonSave(dict(data)),
                    **{_START: ocp.args.JsonSave(self._fingerprints)},
                    config=ocp.args.JsonSave(config_values(self._stage.config)),
                ),
            )
            if wait:
                self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.workdir} "
                f"({str(error).splitlines()[0][:200]}): "
                "free some space and start the run again, it goes on from the last checkpoint"
            ) from error

    def restore(self, mesh: Mesh, step: int | None = None) -> Resumed:
        """The newest state, or that of a step, on any mesh.

        Raises:
          UserError: there is none, it is damaged, or the run began with another start or other weights that draw
            sketches.
        """
        step = self.latest if step is None else step
        if step is None:
            raise UserError(f"{self.workdir} has no checkpoint yet")
        if self._holds_frozen(step):  # as checkpoints of earlier versions do
            return self._restore(mesh, step, frozen=())
        self._check_start(step)
        state, data = self._restore(mesh, step, frozen=self._frozen)
        return Resumed(replace(state, frozen=state.frozen | self.start.load(self._frozen, mesh)), data)

    def _restore(self, mesh: Mesh, step: int, frozen: Collection[str]) -> Resumed:
        """What a checkpoint holds: everything but these frozen parameters."""
        shapes = _without(abstract_state(self._stage), frozen)
        shardings = tree_shardings(shapes, mesh)
        target = _as_dict(
            jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, shardings)
        )
        arguments = ocp.checkpoint_utils.construct_restore_args(target)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(item=target, restore_args=arguments), data=ocp.args.JsonRestore()
                ),
            )
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise UserError(
                f"the checkpoint of step {step} in {self.workdir} cannot be restored "
                f"({str(error).splitlines()[0][:200]}): remove its directory to go on from an earlier one"
            ) from error
        return Resumed(TrainState(**restored["state"]), restored["data"])

    @cached_property
    def _fingerprints(self) -> dict[str, list[str]]:
        found = self.start.fingerprints(self._frozen)
        return {**found, _EXTRACTOR: [self._extractor]} if self._extractor else found

    def _holds_frozen(self, step: int) -> bool:
        return not (self._manager.directory / str(step) / _START).is_dir()

    def _check_start(self, step: int) -> None:
        """Checks that the start still gives the frozen parameters that the run began with, and that the same weights
        draw its sketches.

        Raises:
          UserError: they are others.
        """
        try:
            before = self._manager.restore(step, args=ocp.args.Composite(**{_START: ocp.args.JsonRestore()}))[_START]
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise UserError(
                f"the checkpoint of step {step} in {self.workdir} is damaged: remove its directory to go on from an "
                "earlier one"
            ) from error
        now = dict(self._fingerprints)
        drew, draws = before.pop(_EXTRACTOR, None), now.pop(_EXTRACTOR, None)
        if drew and draws and drew != draws:  # earlier versions did not tell
            raise UserError(
                f"the extractor's weights are not those that drew this run's sketches until step {step}: say where the "
                f"former ones are by --config.{self._stage.config.stage}.weights=FILE, or choose another --workdir"
            )
        other = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if other:
            raise UserError(_other_start(other[0], self._stage.config.start))

    def _check_start_is_elsewhere(self) -> None:
        for checkpoint in self.start.checkpoints:
            if checkpoint.directory.resolve() == (self.workdir / "export").resolve():
                raise UserError(
                    f"config.start is {checkpoint.directory}, which this run will write its own model to: choose "
                    "another --workdir"
                )

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def export(directory: AnyPath, stage: Stage, state: State, *, model: ModelConfig, provenance: JsonObject) -> None:
    """Writes what was trained for sampling: averages where there are any, every component of the model in the run.

    Frozen parameters are in it exactly as the start holds them. Components that were not trained are taken over whole,
    and the provenance of the start's checkpoints is recorded as `started_from`. With low-rank adaptation only the
    factors are written, to `lora.safetensors`.

    Args:
      directory: of the exported model.
      stage: what was trained.
      state: after the last step.
      model: the architecture to note down; see `Stage.fitted_model`.
      provenance: what else is noted down.

    Raises:
      UserError: the directory cannot be written, or the start is gone or holds something else than when the run began.
    """
    params = state.averaged_params
    if stage.lora_targets:
        factors = _on_host({path: value for path, value in params.items() if path.startswith(PREFIX)})
        if is_main_process():
            save_lora(directory / "lora.safetensors", factors, stage.lora.scale, stage.sampling)
        return
    model = replace(model, name=f"{stage.config.stage} of {model.name.rpartition(' of ')[2]}")
    start = Start(stage)
    _check_frozen(start, stage, state)
    holders = component_holders(start.checkpoints)
    # Every process takes part in gathering, the first one writes.
    with contextlib.ExitStack() as stack:
        writer = None
        if is_main_process():
            own = {**(start.checkpoints[0].sampling if start.checkpoints else {}), **stage.sampling}
            before = [dict(checkpoint.provenance) for checkpoint in start.checkpoints]
            description = {**provenance, **({"started_from": before} if before else {})}
            writer = CheckpointWriter(directory, model, description, overwrite=True, sampling=own)
            stack.enter_context(writer)
        for component in COMPONENTS:
            trained = of_component({**state.trained, **state.average}, component)
            giver = start.whole_giver(component) if component in stage.uses else holders.get(component)
            if giver is not None and not trained:
                if writer is not None:
                    writer.copy(giver.directory, [component])
            elif component in stage.uses:
                trained = _on_host(trained)
                if writer is not None:
                    frozen = start.load_on_host(path for path in state.frozen if path.startswith(f"{component}."))
                    writer.write(component, {**of_component(frozen, component), **trained})


def _check_frozen(start: Start, stage: Stage, state: State) -> None:
    """Checks by small arrays, which every process has whole, that the start gives what was trained with.

    Raises:
      UserError: it gives something else.
    """

    def is_compared(path: str, value: jax.Array) -> bool:
        is_here = value.is_fully_addressable or value.is_fully_replicated
        return is_here and value.size <= SMALL and path.partition(".")[0] in COMPONENTS

    small = {path: np.asarray(value) for path, value in state.frozen.items() if is_compared(path, value)}
    for path, value in start.load_on_host(small).items():
        if value.astype(small[path].dtype).tobytes() != small[path].tobytes():
            raise UserError(_other_start(path.partition(".")[0], stage.config.start))


def _other_start(component: str, start: str) -> str:
    if start:
        return (
            f"the {component} of config.start '{start}' is not the one that this run began with: put the former one "
            "back, or say where it is by --config.start=DIR"
        )
    return (
        f"the {component} that this run began with is not what is drawn now from config.seed: give the checkpoint that "
        "it began "
        "with by --config.start=DIR, or, if it began with none, use the version of tooncrafter-jax and numpy that it "
        "began with"
    )


def _without(state: TrainState[Leaf], frozen: Collection[str]) -> TrainState[Leaf]:
    return replace(state, frozen={path: value for path, value in state.frozen.items() if path not in frozen})


def _on_host(params: Mapping[str, AnyArray]) -> dict[str, AnyArray | HostArray]:
    """The same arrays where one process has them all; else whole host arrays, on every process."""
    if jax.process_count() == 1:
        return dict(params)
    return {path: to_host(value) for path, value in params.items()}


def _as_dict(state: TrainState[Leaf]) -> dict[str, PyTree]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


def _check_config(workdir: AnyPath, config: TrainConfig, *, write: bool = True) -> None:
    """Compares with the config that the directory's checkpoints were made with, and writes it down: the first process,
    for all.
    """
    mistake = None
    if is_main_process():
        try:
            _compare_config(workdir, config, write=write)
        except UserError as error:
            mistake = error
    (usable,) = as_the_main_process_says([mistake is None])
    if not usable:
        raise mistake or UserError(f"{workdir} cannot be used: the first process says why")


def _compare_config(workdir: AnyPath, config: TrainConfig, *, write: bool) -> None:
    file = workdir / "config.json"
    now = json.loads(json.dumps(config_values(config)))
    if file.is_file() and any(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*")):
        try:
            before = json.loads(json.dumps(saved_values(read_json(file))))
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(f"{file} is damaged: choose another --workdir") from error
        stages = before["stage"], now["stage"]
        ignored = MAY_CHANGE
        if not _has_adversary(before) and not _has_adversary(now):
            ignored |= {f"{stages[0]}.discriminator.start_step"}
        embedded = [bool(values["data"].get("embeddings")) for values in (before, now)]
        if embedded[0] != embedded[1]:
            ignored -= {"data.embeddings"}  # another directory may hold the same, but pictures are another input
        difference = ("stage", *stages) if stages[0] != stages[1] else next(_differences(before, now, ignored), None)
        if difference:
            key, old, new = difference
            raise UserError(
                f"{workdir} belongs to a run with config.{key}={old!r}, not {new!r}: choose another --workdir or the "
                "old value"
            )
    if write:
        write_atomically(file, (json.dumps(now, indent=1) + "\n").encode())


def _has_adversary(values: JsonObject) -> bool:
    """Whether a discriminator takes part in a run of this config."""
    match values.get(str(values["stage"])):
        case {"discriminator": {"start_step": start}}:
            return start < values["steps"]
    return False


def _differences(
    before: JsonObject, now: JsonObject, ignored: Set[str], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    for key in sorted({*before, *now}):
        path = f"{prefix}{key}"
        if path in ignored:
            continue
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, ignored, f"{path}.")
        elif old != new:
            yield path, old, new
