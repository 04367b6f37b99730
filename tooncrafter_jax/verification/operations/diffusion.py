"""Embeddings of times, noise schedule, guidance, single sampler steps and the training objective."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.guidance import guide
from tooncrafter_jax.diffusion.objective import clean_from_v, loss_per_sample, noise_from_v, noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import SolverOptions
from tooncrafter_jax.diffusion.solvers.ddim import Ddim, DdimRows
from tooncrafter_jax.diffusion.solvers.visits import visits
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn.embeddings import sinusoidal_embedding
from tooncrafter_jax.typing import FloatArray
from tooncrafter_jax.verification.inputs import Inputs, Results
from tooncrafter_jax.verification.layout import channels_first, channels_last
from tooncrafter_jax.verification.model import VerifiedModel
from tooncrafter_jax.verification.operations.denoiser import run_unet

LOSS_NAMES = ["val/loss", "val/loss_simple", "val/loss_vlb"]
"""What the published trainer logs in evaluation mode."""


def timestep_embedding(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (B, dim)."""
    del model
    return {"out": np.asarray(sinusoidal_embedding(jnp.asarray(inputs.array("timesteps")), inputs.setting("dim")))}


def schedule(model: VerifiedModel, inputs: Inputs) -> Results:
    """The 13 buffers of a checkpoint by name, and three tables in float64."""
    del inputs
    return {
        **model.schedule.buffers(),
        "betas_before_rescale_f64": model.schedule.betas_before_rescale,
        "betas_f64": model.schedule.betas,
        "alphas_cumprod_f64": model.schedule.alphas_cumprod_f64,
    }


def _solver_options(inputs: Inputs) -> SolverOptions:
    return SolverOptions(**{name: inputs.setting(name) for name in ("spacing", "steps", "eta")})


def sampler_schedule(model: VerifiedModel, inputs: Inputs) -> Results:
    """The tables of a run in ascending time, (S,) each."""
    options = _solver_options(inputs)
    run, rows = visits(model.schedule, options), Ddim().rows(model.schedule, options)
    descending = {
        "timesteps": run.timestep,
        "alphas": run.alpha,
        "alphas_prev": rows.alpha_next,
        "sigmas": rows.sigma,
        "sqrt_one_minus_alphas": np.sqrt(1.0 - run.alpha.astype(np.float64)).astype(np.float32),
        "scale_arr": run.scale,
        "scale_arr_prev": run.scale_next,
    }
    return {name: np.asarray(column)[::-1] for name, column in descending.items()}


def guidance(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (B, C, T, h, w)."""
    cond, uncond = inputs.array("cond"), inputs.array("uncond")
    out = model.jit("guide", guide)(cond, uncond, inputs.setting("scale"), inputs.setting("rescale", 0.0))
    return {"out": np.asarray(out)}


def one_ddim_step(model: VerifiedModel, inputs: Inputs) -> Results:
    """`x_prev` and `pred_x0` (B, C, T, h, w); with guidance scale 1 the published sampler ignores `uncond`."""
    solver = Ddim()
    rows = solver.rows(model.schedule, _solver_options(inputs))
    row = DdimRows(*(column[::-1][inputs.setting("index")] for column in rows))
    scale = inputs.setting("scale", 1.0)
    uncond = inputs.array("uncond") if inputs.has("uncond") and scale != 1.0 else None

    def step(
        x: FloatArray,
        cond: FloatArray,
        uncond: FloatArray | None,
        noise: FloatArray,
        scale: jax.Array | float,
        rescale: jax.Array | float,
        row: DdimRows,
    ) -> tuple[FloatArray, FloatArray]:
        v = cond if uncond is None else guide(cond, uncond, scale, rescale)
        return solver.step(x, v, row, lambda: noise)

    x, cond, noise = (inputs.array(name) for name in ("x", "cond", "noise"))
    x_prev, clean = model.jit("ddim_step", step)(x, cond, uncond, noise, scale, inputs.setting("rescale", 0.0), row)
    return {"x_prev": np.asarray(x_prev), "pred_x0": np.asarray(clean)}


def losses(model: VerifiedModel, inputs: Inputs) -> Results:
    """What a training step is made of, and with `concat` and `context` the published trainer's losses.

    The variational term has weight 1 at every time under v-prediction, so that it equals the plain loss.
    """
    official = model.official_config["diffusion"]
    if official.get("loss_type", "l2") != "l2":
        raise UserError(
            f"the config has the loss type {official['loss_type']!r}, but a ToonCrafter model is trained with 'l2'"
        )
    dynamic = inputs.setting("dynamic_rescale", model.config.schedule.dynamic_rescale)
    table = NoiseSchedule(replace(model.config.schedule, dynamic_rescale=dynamic))
    latents, noise = (jnp.asarray(channels_last(inputs.array(name))) for name in ("latent", "noise"))
    timesteps = jnp.asarray(inputs.array("timesteps"))
    target = noisy_target(table, latents, noise, timesteps)
    clean = clean_from_v(table, target.noisy, target.v, timesteps)
    recovered_noise = noise_from_v(table, target.noisy, target.v, timesteps)
    results = {
        "scaled_latent": channels_first(target.scaled),
        "x_noisy": channels_first(target.noisy),
        "v_target": channels_first(target.v),
        "x0_from_v_error": _largest(clean - target.scaled),
        "eps_from_v_error": _largest(recovered_noise - noise),
    }
    if not inputs.has("context"):
        return results
    concat = jnp.asarray(channels_last(inputs.array("concat")))
    x = jnp.concatenate([target.noisy, concat], axis=-1)
    fps = inputs.array("fs") if inputs.has("fs") else None
    prediction, _ = run_unet(model, x, timesteps, inputs.array("context"), fps)
    per_sample = np.asarray(loss_per_sample(prediction, target.v), np.float32)
    simple = variational = per_sample.mean()
    simple_weight, variational_weight = official.get("l_simple_weight", 1.0), official.get("original_elbo_weight", 0.0)
    loss = np.float32(simple_weight * simple + variational_weight * variational)
    return {
        **results,
        "model_output": channels_first(prediction),
        "loss": loss,
        "loss_per_sample": per_sample,
        "log_names": LOSS_NAMES,
        "log_values": np.asarray([loss, simple, variational], np.float32),
    }


def _largest(error: jax.Array) -> np.ndarray:
    return np.asarray(jnp.max(jnp.abs(error)))
