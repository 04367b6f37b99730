"""Samples while training: what the model makes of some clips, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.data.transforms import to_pixels
from tooncrafter_jax.diffusion.ddim import sample_chunk, step_chunks
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ddim_tables
from tooncrafter_jax.media import to_uint8, write_contact_sheet, write_mp4
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.training.reporting import Reporter
from tooncrafter_jax.training.stages import Stage
from tooncrafter_jax.training.stages.denoising import Denoising
from tooncrafter_jax.training.stages.reconstruction import Reconstruction
from tooncrafter_jax.training.state import TrainState

CLIPS = 2
STEPS = 25
FPS = 8.0


def write_samples(
    stage: Stage, state: TrainState, directory: Path, step: int, batch: Mapping[str, Any], reporter: Reporter
) -> None:
    """Writes videos and a contact sheet of the first clips of a batch: truth above, the model's below.

    Every process must call it; the first one writes. Denoising stages are sampled with 25 steps, without guidance.
    """
    few = {
        name: jnp.asarray(np.asarray(rows)[:CLIPS]) for name, rows in batch.items() if name not in ("record", "stride")
    }
    if not hasattr(stage, "_sampling"):
        make = exact_float32(stage.config.dtype)(lambda params, rows: _make(stage, params, rows))
        stage._sampling = jax.jit(make)  # pyright: ignore[reportAttributeAccessIssue]
    made = np.asarray(stage._sampling(state.averaged_params, few))  # pyright: ignore[reportAttributeAccessIssue]
    if jax.process_index():
        return
    truth = np.asarray(batch["video"])[:CLIPS]
    for number, frames in enumerate(to_uint8(made)):
        name = f"{step:08}-{number}"
        chosen = np.linspace(0, frames.shape[0] - 1, min(8, frames.shape[0])).round().astype(int)
        if frames.shape[1:] == truth.shape[2:]:
            sheet = np.concatenate([truth[number][chosen], frames[chosen]])
        else:
            sheet = frames[chosen]
        write_contact_sheet(directory / f"{name}.png", sheet, columns=len(chosen))
        write_mp4(directory / f"{name}.mp4", frames, FPS)
        reporter.pictures(step, f"sample/{number}", sheet)


def _make(stage: Stage, params: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> jax.Array:
    """Videos (B, T, H, W, 3) in about [-1, 1]."""
    if isinstance(stage, Reconstruction):
        return stage.reconstruct(params, batch)[0]
    assert isinstance(stage, Denoising)
    given = stage.condition(params, batch)
    schedule = NoiseSchedule(stage.model.schedule)
    shape = given.latents.shape

    def denoise(x: jax.Array, timestep: jax.Array) -> jax.Array:
        times = jnp.full((shape[0],), timestep, jnp.int32)
        return stage.predict(params, batch, x, given, times, None).astype(jnp.float32)

    (steps,) = step_chunks(ddim_tables(schedule, steps=STEPS, eta=0.0), STEPS)
    x = clip_noise(batch["seed"], Stream.INITIAL, jnp.arange(shape[1]), shape[2:])
    x, _ = sample_chunk(denoise, x, steps, lambda index: jnp.zeros_like(x))
    decoder, references = stage.components.bind("decoder", params), None
    if stage.model.decoder.references:
        ends = to_pixels(batch["video"][:, jnp.asarray([0, -1])])
        references = decoder.prepare_references(stage.components.bind("autoencoder", params)(ends)[1])
    return decoder(x / stage.model.schedule.scale_factor, references)
