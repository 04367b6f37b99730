"""What stages that train the denoiser or beside it have in common (spec section 8.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from tooncrafter_jax.diffusion.loop import chunks
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.objective import loss_per_sample, noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import DEFAULT_SOLVER, Solver, SolverOptions, solver_named
from tooncrafter_jax.diffusion.solvers.solver import Rows, number_of_rows
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.remat import remat_policy
from tooncrafter_jax.sampling.denoise import denoise_chunk
from tooncrafter_jax.training.components import as_float32
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.stages.encoding import clean_latents, conditions_of, ends_of, motion_of, times_of
from tooncrafter_jax.training.stages.stage import Batch, Losses, Metrics, Stage
from tooncrafter_jax.typing import Hints, Latents, Video

SAMPLE_STEPS = 25
TIME_BUCKETS = 10
"""The loss is logged for so many equal ranges of diffusion time."""


class Denoising(Stage):
    """The v-prediction loss on clips whose first and last frame are given."""

    last_time_share: float = 0.0
    """Share of the clips that are noised to the last diffusion time; the others' times are drawn evenly."""
    bypass_temporal: bool = False
    """Whether the training forward skips the temporal layers."""
    uses = ("unet", "image_projector", "clip_text", "clip_image", "autoencoder", "decoder")
    follows_motion = True
    reads_embeddings = True
    fewest_frames = 2

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        super().__init__(config, model, mesh)
        if config.motion_share and not self.model.motion.guides_denoiser:
            raise UserError(
                f"config.motion_share is {config.motion_share}, but this denoiser does not see motion: set "
                "config.model_changes.motion.guides_denoiser, or leave the share out"
            )

    def conditions(
        self,
        model: BoundModel,
        batch: Batch,
        ends: Float[Array, "B 2 h w C"],
        frames: int,
        motion: Motion | None = None,
    ) -> Conditions:
        """Everything that the denoiser sees of a clip but its noisy latents, given scaled latents of its first and last
        frame, and the motion between.
        """
        return conditions_of(model, batch, ends, frames, self.config.dtype, *self.hints(batch), motion=motion)

    def hints(self, batch: Batch) -> tuple[Hints | None, Float[Array, "B"] | None]:
        """Sketches that guide the denoiser, and the scale of each clip's control; None where none do."""
        del batch
        return None, None

    def losses(self, model: BoundModel, batch: Batch, key: jax.Array | None) -> tuple[Losses, Metrics]:
        """Mean squared error of v over valid clips, at times and with noise drawn by the examples' seeds."""
        latents = clean_latents(model, batch)
        motion = motion_of(model, batch, self.config.motion_share)
        conditions = self.conditions(model, batch, ends_of(latents), latents.shape[1], motion)
        times = times_of(batch, self.model.schedule.timesteps, self.last_time_share)
        noise = clip_noise(batch["seed"], Stream.INITIAL, jnp.arange(latents.shape[1]), latents.shape[2:])
        errors = self.errors(model, latents, conditions, noise, times, key)
        weights = batch["valid"].astype(jnp.float32)
        loss = jnp.sum(errors * weights) / jnp.maximum(jnp.sum(weights), 1.0)
        return {"v": loss}, by_time(errors, weights, times, self.model.schedule.timesteps)

    def errors(
        self,
        model: BoundModel,
        latents: Latents,
        conditions: Conditions,
        noise: Latents,
        times: Int[Array, "B"],
        key: jax.Array | None,
    ) -> Float[Array, "B"]:
        """Mean squared error of each clip's v; the target is built from the dynamically rescaled latents."""
        target = noisy_target(NoiseSchedule(self.model.schedule), latents, noise, times)
        return loss_per_sample(as_float32(self.predict(model, target.noisy, times, conditions, key)), target.v)

    def predict(
        self,
        model: BoundModel,
        noisy: Latents,
        times: Int[Array, "B"],
        conditions: Conditions,
        key: jax.Array | None = None,
    ) -> Latents:
        """The denoiser's v; `key` is a training step's: it turns dropout on, and the temporal layers off where they are
        bypassed.
        """
        bypasses = self.bypass_temporal and key is not None
        with remat_policy(self.config.remat):
            return model.predict_v(noisy, times, conditions, bypass_temporal=bypasses, dropout_key=key)

    def sampling_run(self) -> tuple[Solver, Rows]:
        """The solver that samples are drawn with while training, and its rows: 25 steps."""
        solver = solver_named(DEFAULT_SOLVER)
        return solver, solver.rows(NoiseSchedule(self.model.schedule), SolverOptions(steps=SAMPLE_STEPS, eta=0.0))

    def sample(self, model: BoundModel, batch: Batch, frames_at_a_time: int | None = None) -> Video:
        """Clips drawn from their end frames, without guidance, as a user of the exported model would draw them."""
        frames, seeds = batch["video"].shape[1], batch["seed"]
        ends, references = model.encode_ends(to_pixels(ends_of(batch["video"])), seeds, frames - 1)
        solver, rows = self.sampling_run()
        (chunk,) = chunks(rows, number_of_rows(rows))
        x = clip_noise(seeds, Stream.INITIAL, jnp.arange(frames), ends.shape[2:])
        motion = motion_of(model, batch, float(self.config.motion_share > 0))
        conditions = self.conditions(model, batch, ends, frames, motion)
        carry, _ = denoise_chunk(model, solver.init(x), chunk, seeds, conditions, solver=solver)
        return model.decode(solver.latents(carry), references, frames_at_a_time, motion)


def by_time(errors: jax.Array, weights: jax.Array, times: jax.Array, timesteps: int) -> Metrics:
    """Sums of losses and of clips by range of diffusion time."""
    buckets = times * TIME_BUCKETS // timesteps
    return {
        "loss_by_time": jnp.zeros(TIME_BUCKETS).at[buckets].add(errors * weights),
        "clips_by_time": jnp.zeros(TIME_BUCKETS).at[buckets].add(weights),
    }
