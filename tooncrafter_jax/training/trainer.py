"""The trainer of every stage: validate, save, next batch, step, report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from tooncrafter_jax.data.loader import Batch as HostBatch
from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import GivenPath, Mirror, any_path, local_path
from tooncrafter_jax.nn.attention import check_backend
from tooncrafter_jax.notes import remark
from tooncrafter_jax.planning.utilisation import seconds_at_peak
from tooncrafter_jax.runtime.distributed import check_joined, describe_machine, is_main_process, only_run_in
from tooncrafter_jax.sketches import load_extractor
from tooncrafter_jax.training.checkpoints import Checkpoints, export
from tooncrafter_jax.training.configuration import config_values
from tooncrafter_jax.training.embedded import check_encoders
from tooncrafter_jax.training.hints import HintDrawing
from tooncrafter_jax.training.interruption import Interruption, watched
from tooncrafter_jax.training.memory import told_if_memory_is_short
from tooncrafter_jax.training.pacing import Pacing
from tooncrafter_jax.training.profiling import Profile
from tooncrafter_jax.training.reporting import Reporter, in_background, mean_of_batches, parameter_table
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.run_mesh import run_mesh
from tooncrafter_jax.training.samples import Samples
from tooncrafter_jax.training.sharding import check_batch, check_frames, process_rows, put_batch, step_rows
from tooncrafter_jax.training.stages import Stage, make_stage
from tooncrafter_jax.training.stages.stage import Batch, Metrics
from tooncrafter_jax.training.start import Start, architecture
from tooncrafter_jax.training.state import State
from tooncrafter_jax.training.step import make_step, make_validation
from tooncrafter_jax.typing import JsonObject


class TrainingResult(NamedTuple):
    """How a run ended.

    Attributes:
      step: steps that were taken in all.
      finished: False if it was asked to stop before the end.
      metrics: of the last report.
    """

    step: int
    finished: bool
    metrics: dict[str, float]


class Trainer:
    """A run of a config in a working directory, from its beginning or from where it was interrupted.

    Args:
      config: what is trained, and how.
      workdir: for checkpoints, logs and the exported model; the same on every host. A directory, or the URL of one in a
        bucket.
      profile: whether to trace a few steps into `workdir / "profile"`.

    Raises:
      UserError: for anything about the config, its start and the devices that can be known to be wrong. Clips and
        sketches are looked at when a run needs them.
    """

    def __init__(self, config: TrainConfig, workdir: GivenPath, *, profile: bool = False) -> None:
        self.config, self.workdir = config, any_path(workdir)
        self._profile = Profile(self.workdir / "profile" if profile else None)
        check_joined()
        model = self._architecture = architecture(config)
        self.mesh: Mesh = run_mesh(config, model)
        if self.mesh.size > 1:
            remark(describe_machine(self.mesh))
        check_batch(config.data.batch, config.accumulation, self.mesh)
        check_frames(config.data.frames, self.mesh)
        if config.remat == "offload" and jax.default_backend() == "cpu":
            raise UserError("config.remat 'offload' needs a TPU or a GPU: choose 'blocks'")
        check_backend(config.attention, config.dtype, "config.attention")
        size = config.data.height, config.data.width
        if any(side % model.pixel_multiple for side in size):
            raise UserError(
                f"config.data asks for {size[0]}x{size[1]} pixels, which must be multiples of {model.pixel_multiple}"
            )
        self.stage: Stage = make_stage(config, model, self.mesh)
        self._hints: HintDrawing | None = None
        self._validation = make_validation(self.stage, self.mesh)
        self._samples = Samples(self.stage, self.mesh, self._with_hints)

    # -------------------------------------------------------------------------------------------------------- data

    def _loader(self, split: str, *, evaluation: bool = False) -> Loader:
        settings = replace(self.config.data, split=split)
        if evaluation:  # a few batches, for which no processes are started every time
            settings = replace(settings.evaluation(), embeddings="", num_workers=0)
        if self.stage.needs_pixels:
            settings = replace(settings, video=True)
        loader = Loader.open(settings, rows=process_rows(self.mesh, settings.batch))
        if loader.clips < settings.batch and not evaluation:
            raise UserError(
                f"the split '{split}' has {loader.clips} clips, fewer than config.data.batch={settings.batch}: choose "
                "a smaller batch or a larger set"
            )
        return loader

    def _sketcher(self) -> HintDrawing | None:
        source = self.stage.sketches
        if source is None:
            return None
        extractor = load_extractor(source.extractor, local_path(source.weights) if source.weights else None)
        return HintDrawing(extractor, self.mesh, every_frame=source.every_frame)

    def _with_hints(self, batch: Batch) -> Batch:
        """A batch on the devices, with its sketches where they guide the stage."""
        return batch if self._hints is None else {**batch, "hints": self._hints(batch)}

    def _placed(self, batch: HostBatch) -> Batch:
        """The rows that this process has loaded, as a part of the global batch on the devices."""
        return self._with_hints(put_batch(step_rows(batch), self.mesh, self.config.data.batch))

    # --------------------------------------------------------------------------------------------------------- run

    def run(self) -> TrainingResult:
        """Trains to the last step, or until the run is asked to stop.

        Raises:
          UserError: the clips, the extractor's weights or those of LPIPS are missing, before anything is written; too
            many steps in a row were not finite, a clip is damaged, a checkpoint cannot be written, a device's memory is
            full, or another run is going on in the working directory.
        """
        self._check_pictures()
        Start(self.stage).check_published()
        self._hints = self._sketcher()
        with self._loader(self.config.data.split) as loader, only_run_in(self.workdir):
            return self._run(loader)

    def _check_pictures(self) -> None:
        """Checks that there are pictures to validate on and to make samples of, which embeddings alone do not have.

        Raises:
          UserError: there are none.
        """
        config = self.config
        if not config.data.embeddings or config.data.directory:
            return
        for key, value, never in (("validation", config.validation, "''"), ("sample_every", config.sample_every, "0")):
            if value:
                raise UserError(
                    f"config.{key} is {value}, which needs pictures: set config.data.directory to the set that the "
                    f"embeddings were made of, or config.{key} to {never}"
                )

    def _run(self, loader: Loader) -> TrainingResult:
        extractor = self._hints.fingerprint if self._hints else ""
        checkpoints = Checkpoints(self.workdir, self.stage, extractor=extractor)
        with (
            jax.set_mesh(self.mesh),
            watched() as interruption,
            told_if_memory_is_short(self.config, self.mesh),
            contextlib.ExitStack() as stack,
        ):
            stack.callback(checkpoints.close)
            state = self._begin(checkpoints, loader)
            reporter = self._reporter(int(state.step))
            stack.callback(reporter.close)
            stack.callback(self._profile.close)
            state, finished, outcome = self._train(state, loader, checkpoints, reporter, interruption)
            checkpoints.save(state, loader.state(), wait=True)
            if finished:
                self._validate_and_sample(state, self.config.steps, reporter, last=True)
                self._export(state)
            else:
                reporter.say(f"told to stop: saved step {int(state.step)}; the same command goes on from there")
            return TrainingResult(int(state.step), finished, outcome)

    def _begin(self, checkpoints: Checkpoints, loader: Loader) -> State:
        """The state that the run goes on from, and the loader where it stood then."""
        if checkpoints.latest is None:
            state = checkpoints.start.state(self.mesh)
        else:
            state, position = checkpoints.restore(self.mesh)
            loader.restore(position)
        if self.config.data.embeddings:
            check_encoders(self.config.data.embeddings, state.frozen, self.mesh)
        return state

    def _reporter(self, done: int) -> Reporter:
        config, at_peak = self.config, None
        if is_main_process():
            at_peak = in_background(lambda: seconds_at_peak(config, self._architecture))
        reporter = Reporter(
            self.workdir, steps=config.steps, done=done, clips=config.data.batch, seconds_at_peak=at_peak
        )
        reporter.say(parameter_table(self.stage))
        if done:
            reporter.say(f"going on after step {done}")
        return reporter

    def _train(
        self,
        state: State,
        loader: Loader,
        checkpoints: Checkpoints,
        reporter: Reporter,
        interruption: Interruption,
    ) -> tuple[State, bool, dict[str, float]]:
        """Takes the steps that are left; the state after them, whether they were all, and the last report."""
        config, done = self.config, int(state.step)
        step_fn, metrics, outcome = make_step(self.stage, self.mesh), {}, {}
        pacing, finished = Pacing(), True
        for step in range(done, config.steps):
            saves = config.save_every and step % config.save_every == 0 and step > done
            if saves or self._validates(step) or self._makes_samples(step):
                pacing.finish()  # their time is the steps', what follows is not
                with reporter.paused():
                    self._validate_and_sample(state, step, reporter)
                    if saves:
                        checkpoints.save(state, loader.state())
            pacing.before_step()
            started = time.monotonic()
            batch = self._placed(next(loader))
            waited = time.monotonic() - started
            self._profile.before_step()
            state, metrics = step_fn(state, batch)
            pacing.after_step(metrics)
            self._profile.after_step(metrics)
            reporter.advance(waited)
            if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
                outcome = reporter.training(step + 1, metrics)
                self._check_finite(metrics, step + 1)
            if interruption.requested(step + 1):
                finished = step + 1 == config.steps
                break
        self._check_finite(metrics, int(state.step))
        return state, finished, outcome

    def export(self) -> int:
        """Exports the newest checkpoint, without training on; a run that goes on meanwhile is not disturbed.

        Returns:
          Its step.

        Raises:
          UserError: there is no checkpoint yet, it is damaged, or the export cannot be written.
        """
        checkpoints = Checkpoints(self.workdir, self.stage, read_only=True)
        with jax.set_mesh(self.mesh):
            state = checkpoints.restore(self.mesh).state
            self._export(state)
        checkpoints.close()
        return int(state.step)

    def _export(self, state: State) -> None:
        model = self.stage.fitted_model(state.averaged_params, lambda: self._placed(self._few_clips()))
        export(self.workdir / "export", self.stage, state, model=model, provenance=self._provenance(int(state.step)))

    def _check_finite(self, metrics: Metrics, step: int) -> None:
        """Stops the run when too many steps in a row were skipped; they changed nothing."""
        limit = self.config.max_skipped_steps
        if metrics and int(metrics["skipped_in_a_row"]) >= limit:
            raise UserError(
                f"the loss or its gradient was not finite in the last {int(metrics['skipped_in_a_row'])} steps before "
                f"step {step}: the last checkpoint is good; look at the data, or lower config.optimizer.learning_rate"
            )

    def _validates(self, step: int, *, last: bool = False) -> bool:
        return bool(self.config.validation) and (last or step % self.config.validate_every == 0)

    def _makes_samples(self, step: int, *, last: bool = False) -> bool:
        every = self.config.sample_every
        return bool(every and step) and (last or step % every == 0)

    def _validate_and_sample(self, state: State, step: int, reporter: Reporter, *, last: bool = False) -> None:
        if self._validates(step, last=last) and (last or not reporter.has_validated(step)):
            reporter.write(step, {f"validation/{name}": value for name, value in self.validate(state).items()})
        if self._makes_samples(step, last=last):
            with Mirror(self.workdir / "samples") as mirror:
                self._samples.write(state.averaged_params, step, mirror.local, reporter)

    def validate(self, state: State) -> dict[str, float]:
        """Means over the clips of the first batches of the validation split; the same clips, times and noise every
        time.
        """
        config, params = self.config, state.averaged_params
        with self._loader(config.validation, evaluation=True) as loader:
            batches = islice(_until_end(loader), config.validation_batches)
            return mean_of_batches(jax.device_get(self._validation(params, self._placed(batch))) for batch in batches)

    def _few_clips(self) -> HostBatch:
        split = self.config.validation or self.config.data.split
        with self._loader(split, evaluation=True) as loader:
            return next(loader)

    def _provenance(self, step: int) -> JsonObject:
        return {"trained_by": "tooncrafter_jax", "steps": step, "config": config_values(self.config)}


def _until_end(loader: Loader) -> Iterator[HostBatch]:
    while True:
        try:
            yield next(loader)
        except StopIteration:
            return
