"""The stage `distill`: a student learns to do in one to eight steps what its teacher does in many, guidance included.

Consistency distillation of latent video: the loss and the guided teacher of latent consistency models (Luo et al. 2023,
arXiv:2310.04378), low-rank factors instead of whole weights as in LCM-LoRA (Luo et al. 2023, arXiv:2311.05556), the
whole video model at once as in T2V-Turbo (Li et al. 2024, arXiv:2405.18750), without its rewards, and layers over space
and time that can be trained apart as in AnimateLCM (Wang et al. 2024, arXiv:2402.00769), by `config.groups`. From Song
and Dhariwal (2023, arXiv:2310.14189) are the distance, and targets by the student of the same step, not by an average
of earlier ones. See `diffusion.consistency`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from tooncrafter_jax.diffusion.consistency import TeacherSteps, consistency, pseudo_huber, teacher_steps
from tooncrafter_jax.diffusion.guidance import guide
from tooncrafter_jax.diffusion.noise import Stream, clip_guidance, clip_noise, clip_timesteps
from tooncrafter_jax.diffusion.objective import noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import Solver, SolverOptions, solver_named
from tooncrafter_jax.diffusion.solvers.solver import Rows
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions
from tooncrafter_jax.training.components import FlatParams, as_float32
from tooncrafter_jax.training.lora import LoraConfig
from tooncrafter_jax.training.run_config import TrainConfig, ranged
from tooncrafter_jax.training.stages.denoising import Denoising, by_time
from tooncrafter_jax.training.stages.encoding import (
    clean_latents,
    ends_of,
    guided_hints,
    motion_of,
    picture_tokens,
    text_tokens,
)
from tooncrafter_jax.training.stages.stage import Batch, Derived, ExtractorOptions, Losses, Metrics, SketchSource
from tooncrafter_jax.typing import DeviceParams, Hints, JsonObject, Key, Latents, Scalar, Tokens
from tooncrafter_jax.weights.lora import PREFIX

TEACHER = "teacher."
"""Prefix of the paths of the teacher's own parameters."""


@dataclass(frozen=True)
class DistillOptions(ExtractorOptions):
    """Options of the stage `distill`, beside those of `ExtractorOptions`.

    Attributes:
      times: steps of the teacher from noise to clean latents, whose times are those that the student knows; where they
        are a multiple of the sampling steps, sampling visits known times alone.
      guidance_scale: of the teacher, which the student learns to have in it: it is sampled without guidance.
      most_guidance: where above `guidance_scale`, each clip has a scale between the two, which the student is not told:
        it learns what lies amid them; 0 for one scale.
      guidance_rescale: of the teacher; see the sampling option.
      last_time_share: of the clips that are noised to the last diffusion time, from which sampling begins; the others'
        times are drawn evenly. For students that are to sample in one step.
      huber: constant of the distance, in scaled latents; see `diffusion.consistency.pseudo_huber`.
      steps: of sampling with the student: for samples while training, and noted in what is exported.
      sketched: whether sketches guide teacher and student; the sketch encoder, which the start must hold, stays as it
        is.
      lora: low-rank adaptation instead of training the layers themselves: the teacher is the model without the factors,
        and takes no memory of its own.
    """

    times: int = ranged(40, least=1)
    guidance_scale: float = ranged(7.5, least=0, most=100)
    most_guidance: float = ranged(0.0, least=0, most=100)
    guidance_rescale: float = ranged(0.7, least=0, most=1)
    last_time_share: float = ranged(0.0, least=0, most=1)
    huber: float = ranged(0.001, least=1e-6)
    steps: int = ranged(4, least=1)
    sketched: bool = False
    lora: LoraConfig = LoraConfig()


class _Given(NamedTuple):
    """What teacher and student are given alike of a batch.

    Attributes:
      ends: scaled latents of the first and the last frame.
      text, picture: tokens of the captions, and CLIP's of the first frames.
      fps: frame rates.
      hints: sketches, and the scale of each clip's control.
      motion: between the two frames, or None.
    """

    ends: Float[Array, "B 2 h w C"]
    text: Tokens
    picture: Float[Array, "B P E"]
    fps: Int[Array, "B"]
    hints: tuple[Hints | None, Float[Array, "B"] | None]
    motion: Motion | None

    def conditions(self, model: BoundModel, frames: int) -> Conditions:
        """What this model makes of them."""
        image = model.image_tokens(self.picture)
        return model.condition(self.ends, frames, self.text, image, self.fps, *self.hints, self.motion)


class Distill(Denoising):
    """The denoiser learns its own guided sampling, by consistency along the teacher's steps.

    The teacher is the denoiser as the start has it. Beside low-rank factors it is the model without them; otherwise a
    frozen copy of what is trained, in `config.frozen_dtype`, and of nothing else. What the motion, sketches and end
    frames are to the teacher, they are to the student.
    """

    Options = DistillOptions
    options: DistillOptions
    trains = ("spatial", "temporal", "image_kv", "fps")
    may_train = ("projector", *trains)

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        options = config.options
        if isinstance(options, DistillOptions) and options.sketched:
            self.uses, self.needs_pixels = (*Denoising.uses, "sketch_encoder"), True
        super().__init__(config, model, mesh)
        self._check_options()
        if not self.lora.rank:
            trained = [path for path in self.components.abstract_params if self.is_trained(path)]
            self.copies = {f"{TEACHER}{path}": path for path in trained}

    def _check_options(self) -> None:
        options, times = self.options, self.model.schedule.timesteps
        if options.times > times:
            raise UserError(
                f"config.distill.times is {options.times}, but the schedule of this model has {times}: set at most that"
            )
        if options.steps > options.times:
            raise UserError(
                f"config.distill.steps is {options.steps}, more than the {options.times} steps of the teacher "
                "(config.distill.times): set fewer"
            )
        if options.most_guidance and options.most_guidance < options.guidance_scale:
            raise UserError(
                f"config.distill.most_guidance is {options.most_guidance}, below config.distill.guidance_scale, which "
                f"is {options.guidance_scale}: set more, or 0 for one scale"
            )

    @property
    def lora(self) -> LoraConfig:
        """As the options say."""
        return self.options.lora

    @property
    def sketches(self) -> SketchSource | None:
        """As the options say, if there are any."""
        if not self.options.sketched:
            return None
        return self.options.source()

    @property
    def sampling(self) -> JsonObject:
        """The student's solver and number of steps, without guidance; what a teacher's sampling had beyond is left
        out.
        """
        left_out = dict.fromkeys(("image_guidance_scale", "guidance_interval", "timesteps", "reuse"))
        return {"solver": "lcm", "steps": self.options.steps, "guidance_scale": 1.0, **left_out}

    @property
    def is_guided_teacher(self) -> bool:
        """Whether the teacher predicts without prompt and picture, too."""
        return self.options.guidance_scale != 1.0 or self.options.most_guidance > 1.0

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """The teacher's own parameters are those that the student starts from."""
        return {path: Derived(self.copies[path], lambda value: value) for path in missing if path in self.copies}

    def hints(self, batch: Batch) -> tuple[Hints | None, Float[Array, "B"] | None]:
        """The sketches of the clips that have some."""
        return guided_hints(batch)

    def sampling_run(self) -> tuple[Solver, Rows]:
        """In the student's few steps."""
        solver = solver_named("lcm")
        return solver, solver.rows(NoiseSchedule(self.model.schedule), SolverOptions(steps=self.options.steps))

    def of_teacher(self, params: FlatParams) -> DeviceParams:
        """All parameters, with the teacher's in the place of what the student learns."""
        own = {path: value for path, value in params.items() if not path.startswith(PREFIX)}
        return own | {path: params[copy] for copy, path in self.copies.items()}

    def loss(self, params: FlatParams, batch: Batch, key: Key | None) -> tuple[Scalar, tuple[Losses, Metrics]]:
        """The distance between what the student makes of noisy latents and of those that a guided step of the teacher
        leads to, over valid clips; nothing drops out, neither of the teacher nor of the student.

        No gradient goes into the teacher, or into the student that makes the target. A clip's seed draws its time,
        noise and guidance scale.
        """
        del key
        student, teacher = self.bound(params), self.bound(self.of_teacher(params))
        latents = clean_latents(student, batch)
        given = _Given(
            ends_of(latents),
            text_tokens(student, batch, self.config.dtype),
            picture_tokens(student, batch, self.config.dtype),
            batch["fps"],
            self.hints(batch),
            motion_of(student, batch, self.config.motion_share),
        )
        schedule = NoiseSchedule(self.model.schedule)
        ladder = teacher_steps(schedule, self.options.times)
        index = clip_timesteps(batch["seed"], self.options.times, self.options.last_time_share)
        times = jnp.asarray(ladder.time)[index]
        noise = clip_noise(batch["seed"], Stream.INITIAL, jnp.arange(latents.shape[1]), latents.shape[2:])
        noisy = noisy_target(schedule, latents, noise, times).noisy

        following = self._taught(teacher, ladder, noisy, index, given, batch["seed"])
        fixed = self.bound(jax.lax.stop_gradient(dict(params)))
        target = self._target(fixed, ladder, following, index, given)
        predicted = self._clean(student, noisy, times, given.conditions(student, noisy.shape[1]))

        errors = pseudo_huber(predicted, jax.lax.stop_gradient(target), self.options.huber)
        weights = batch["valid"].astype(jnp.float32)
        loss = jnp.sum(errors * weights) / jnp.maximum(jnp.sum(weights), 1.0)
        metrics = by_time(errors, weights, times, self.model.schedule.timesteps)
        return loss, ({"consistency": loss}, metrics)

    def _taught(
        self,
        teacher: BoundModel,
        ladder: TeacherSteps,
        noisy: Latents,
        index: Int[Array, "B"],
        given: _Given,
        seeds: Array,
    ) -> Latents:
        """The latents that one guided step of the teacher leads to."""
        schedule, options, frames = NoiseSchedule(self.model.schedule), self.options, noisy.shape[1]
        times = jnp.asarray(ladder.time)[index]
        v = as_float32(self.predict(teacher, noisy, times, given.conditions(teacher, frames)))
        if self.is_guided_teacher:
            away = _without_prompt_and_picture(teacher, given)
            uncond = as_float32(self.predict(teacher, noisy, times, away.conditions(teacher, frames)))
            most = options.most_guidance or options.guidance_scale
            scale = clip_guidance(seeds, options.guidance_scale, most).reshape(-1, 1, 1, 1, 1)
            v = guide(v, uncond, scale, options.guidance_rescale)
        return ladder.led(noisy, consistency(schedule, noisy, v, times), index)

    def _target(
        self, fixed: BoundModel, ladder: TeacherSteps, noisy: Latents, index: Int[Array, "B"], given: _Given
    ) -> Latents:
        """What the student makes of the latents that the teacher's step has led to, which are clean already at the end
        of the ladder.
        """
        times = jnp.asarray(ladder.following)[index]
        clean = self._clean(fixed, noisy, times, given.conditions(fixed, noisy.shape[1]))
        return jnp.where((index == 0).reshape(-1, 1, 1, 1, 1), noisy, clean)

    def _clean(self, model: BoundModel, noisy: Latents, times: Int[Array, "B"], conditions: Conditions) -> Latents:
        v = as_float32(self.predict(model, noisy, times, conditions))
        return consistency(NoiseSchedule(self.model.schedule), noisy, v, times)


def _without_prompt_and_picture(teacher: BoundModel, given: _Given) -> _Given:
    """The same with an empty prompt and the all-zero picture (spec section 6.4)."""
    size = teacher.config.clip_image.image_size
    text = teacher.text_tokens(jnp.asarray(np.asarray(tokenizer()([""]))))
    picture = teacher.picture_tokens(jnp.zeros((1, size, size, 3), jnp.float32))
    return given._replace(
        text=jnp.broadcast_to(text, given.text.shape), picture=jnp.broadcast_to(picture, given.picture.shape)
    )
