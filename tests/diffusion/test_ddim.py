"""Single steps against the reference, and whole runs with a denoiser that knows the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import golden, noise
from tooncrafter_jax.diffusion.ddim import ddim_step, sample_chunk, step_chunks
from tooncrafter_jax.diffusion.guidance import guide
from tooncrafter_jax.diffusion.schedule import DdimTables, NoiseSchedule, ddim_tables

SCHEDULE = NoiseSchedule()
SHAPE = (1, 2, 4, 4, 4)


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def step_noise(index: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(jax.random.key(1), index), SHAPE)


def oracle(clean: np.ndarray) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The v of a model that always knows the clean latents; the rescaled ones, since it was trained on these."""
    tables = (SCHEDULE.sqrt_alphas_cumprod, SCHEDULE.sqrt_one_minus_alphas_cumprod, SCHEDULE.dynamic_scale[:1000])
    signal, sigma, scale = (jnp.asarray(table) for table in tables)

    def denoise(x: jax.Array, time: jax.Array) -> jax.Array:
        # x = signal·clean + sigma·eps and v = signal·eps - sigma·clean, solved for v without dividing by the signal.
        scaled = scale[time] * clean
        eps = (x - signal[time] * scaled) / sigma[time]
        return signal[time] * eps - sigma[time] * scaled

    return denoise


def run(tables: DdimTables, denoise: Any, chunk: int, x: np.ndarray) -> np.ndarray:
    compiled = jax.jit(lambda x, steps: sample_chunk(denoise, x, steps, step_noise)[0])
    latents = jnp.asarray(x)
    for steps in step_chunks(tables, chunk):
        latents = compiled(latents, steps)
    return np.asarray(latents)


CASES = [("uniform_trailing", 1, index) for index in (49, 25, 5, 0)]
CASES += [("uniform_trailing", 0, 10), ("uniform", 1, 30)]


@pytest.mark.parametrize(("spacing", "eta", "index"), CASES)
def test_a_step_equals_the_reference(spacing: Any, eta: int, index: int) -> None:
    """Guidance 7.5 and rescale 0.7, as published; values are of about unit size after operations on values of about 10."""
    tables = ddim_tables(SCHEDULE, spacing=spacing, steps=50, eta=float(eta))
    rows = next(step_chunks(tables, tables.steps))
    step = jax.tree.map(lambda column: jnp.asarray(column[tables.steps - 1 - index]), rows)
    assert int(step.timestep) == tables.timesteps[index]
    cond, uncond, x, eps = (
        jnp.asarray(noise(f"fixture.cfg.{name}", (2, 4, 16, 8, 16))) for name in ("cond", "uncond", "x", "noise")
    )
    arrays, prefix = golden("ddim_step"), f"{spacing}_50_eta{eta}_index{index}/"
    for ours, name in zip(ddim_step(x, guide(cond, uncond, 7.5, 0.7), eps, step), ("x_prev", "pred_x0"), strict=True):
        np.testing.assert_allclose(np.moveaxis(np.asarray(ours), -1, 1)[:, :, :2], arrays[prefix + name], atol=5e-6)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [3, 50])
def test_the_exact_last_step_returns_what_the_model_knows(steps: int, eta: float) -> None:
    """Whatever the start and the noise: the last step has neither noise nor a noise estimate left."""
    clean = normal(0)
    tables = ddim_tables(SCHEDULE, steps=steps, eta=eta, exact_last_step=True)
    # A few roundings of values of about unit size; the solution for v divides by sigma >= 0.13.
    np.testing.assert_allclose(run(tables, oracle(clean), steps, normal(2)), clean, atol=3e-6)


@pytest.mark.parametrize(("steps", "scale"), [(50, 0.9853), (25, 0.9703)])
def test_the_published_last_step_leaves_a_scale_and_noise(steps: int, scale: float) -> None:
    """Spec section 6.3: the latent times 0.985 (50 steps), and noise of standard deviation 0.029."""
    clean = normal(0)
    tables = ddim_tables(SCHEDULE, steps=steps, eta=1.0)

    @jax.jit
    def final(seed: jax.Array) -> jax.Array:
        def fresh(index: jax.Array) -> jax.Array:
            return jax.random.normal(jax.random.fold_in(jax.random.key(seed), index), SHAPE)

        return sample_chunk(oracle(clean), jnp.asarray(normal(2)), next(step_chunks(tables, steps)), fresh)[0]

    finals = np.stack([final(jnp.uint32(seed)) for seed in range(40)])
    # The mean over 40 runs errs by 0.029/sqrt(40) = 0.0046 an entry; the fit over 128 entries by 0.0004.
    fitted = float((finals.mean(0) * clean).sum() / (clean**2).sum())
    assert abs(fitted - scale) < 0.002
    assert abs((finals - finals.mean(0)).std() * np.sqrt(40 / 39) - 0.0292) < 0.0015  # 5120 draws


def test_padded_chunks_equal_one_run() -> None:
    """Seven steps as 5 + 2 with three steps of padding, and as one chunk."""
    tables, denoise, x = ddim_tables(SCHEDULE, steps=7), oracle(normal(0)), normal(2)
    whole = run(tables, denoise, 7, x)
    np.testing.assert_allclose(run(tables, denoise, 5, x), whole, atol=1e-6)
    chunks = list(step_chunks(tables, 5))
    assert [chunk.active.tolist() for chunk in chunks] == [[True] * 5, [True] * 2 + [False] * 3]
    assert np.concatenate([chunk.timestep for chunk in chunks])[:7].tolist() == tables.timesteps[::-1].tolist()
    assert np.concatenate([chunk.index for chunk in chunks])[:7].tolist() == list(range(7))


def test_padding_costs_nothing_and_changes_nothing() -> None:
    """A denoiser that would spoil everything is not asked."""
    steps = next(step_chunks(ddim_tables(SCHEDULE, steps=2), 5))
    asked: list[int] = []

    def spoil(x: jax.Array, time: jax.Array) -> jax.Array:
        jax.debug.callback(lambda t: asked.append(int(t)), time)
        return x * 0 + jnp.where(steps_left(time), 0.0, jnp.nan)

    def steps_left(time: jax.Array) -> jax.Array:
        return (time == 999) | (time == 499)

    out, predictions = sample_chunk(spoil, jnp.asarray(normal(0)), steps, step_noise, with_predictions=True)
    jax.effects_barrier()
    assert asked == [999, 499]
    assert np.isfinite(out).all()
    assert predictions is not None and predictions.shape == (5, *SHAPE)


def test_predictions_are_the_clean_latents_of_each_step() -> None:
    """An oracle's predictions are the clean latents times the scale of the next time."""
    clean, tables = normal(0), ddim_tables(SCHEDULE, steps=4)
    steps = next(step_chunks(tables, 4))
    _, predictions = sample_chunk(oracle(clean), jnp.asarray(normal(2)), steps, step_noise, with_predictions=True)
    assert predictions is not None
    for prediction, scale in zip(predictions, tables.scale_prev[::-1], strict=True):
        np.testing.assert_allclose(prediction, scale * clean, atol=3e-6)


def test_the_first_step_of_pure_noise_forgets_its_input() -> None:
    """At the last time with eta 1 the new latents are signal and fresh noise.

    What is left of the old ones is the root of the rounding of a radicand that is 0 in exact arithmetic; the published code
    has it too, in float32: one unit in the last place of 1, 2^-24, hence 2^-12.
    """
    tables, clean = ddim_tables(SCHEDULE, steps=50), normal(0)
    row = jax.tree.map(lambda column: jnp.asarray(column[0]), next(step_chunks(tables, 50)))
    assert int(row.timestep) == 999 and float(row.direction) in (0.0, 2.0**-12)

    def step(x: np.ndarray) -> np.ndarray:
        v = -SCHEDULE.dynamic_scale[999] * clean  # at time 999 v is minus the clean latents
        return np.asarray(jax.jit(ddim_step)(jnp.asarray(x), jnp.asarray(v), step_noise(jnp.asarray(0)), row)[0])

    left = (step(normal(2)) - step(normal(3))) / (normal(2) - normal(3))
    np.testing.assert_allclose(left, float(row.direction), atol=1e-4)
    time, signal = tables.timesteps[-2], np.float64(SCHEDULE.alphas_cumprod[tables.timesteps[-2]])
    expected = signal**0.5 * SCHEDULE.dynamic_scale[time] * clean + (1 - signal) ** 0.5 * step_noise(jnp.asarray(0))
    np.testing.assert_allclose(step(np.zeros(SHAPE, np.float32)), expected, atol=2e-6)
