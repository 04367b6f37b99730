"""What a training step feeds to the model and asks of it."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import golden, noise
from tooncrafter_jax.diffusion.objective import clean_from_v, loss_per_sample, noise_from_v, noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig

SCHEDULE = NoiseSchedule()
WITHOUT_RESCALE = NoiseSchedule(replace(ScheduleConfig(), dynamic_rescale=False))
TOLERANCE = 2e-6
"""Sums of two products of about unit size, in float32."""


def inputs() -> tuple[jnp.ndarray, jnp.ndarray]:
    """Latents and noise of the reference, (2, 16, 8, 16, 4)."""
    latent, drawn = (jnp.asarray(noise(f"fixture.loss.{name}", (2, 4, 16, 8, 16))) for name in ("latent", "noise"))
    return latent, drawn


def times(name: str) -> jnp.ndarray:
    return jnp.asarray(golden("losses")[name], jnp.int32)


def first(x: jnp.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


def test_targets_equal_the_reference() -> None:
    arrays = golden("losses")
    target = noisy_target(SCHEDULE, *inputs(), times("timesteps"))
    np.testing.assert_allclose(first(target.scaled)[:, :, 0], arrays["scaled_latent_0"], atol=TOLERANCE)
    np.testing.assert_allclose(first(target.noisy)[:, :, ::4], arrays["x_noisy_strided"], atol=TOLERANCE)
    np.testing.assert_allclose(first(target.v)[:, :, ::4], arrays["v_target_strided"], atol=TOLERANCE)


def test_targets_at_the_ends_of_time_equal_the_reference() -> None:
    arrays = golden("losses")
    target = noisy_target(WITHOUT_RESCALE, *inputs(), times("t_edge"))
    np.testing.assert_allclose(first(target.noisy)[:, :, :2], arrays["x_noisy_edge"], atol=TOLERANCE)
    np.testing.assert_allclose(first(target.v)[:, :, :2], arrays["v_edge"], atol=TOLERANCE)


def test_at_the_last_time_the_input_is_pure_noise() -> None:
    latents, eps = inputs()
    target = noisy_target(SCHEDULE, latents, eps, jnp.asarray([999, 999], jnp.int32))
    np.testing.assert_array_equal(target.noisy, eps)
    np.testing.assert_allclose(target.v, -np.float32(0.7) * np.asarray(latents), atol=1e-6)


@pytest.mark.parametrize("schedule", [SCHEDULE, WITHOUT_RESCALE], ids=["rescaled", "plain"])
def test_v_stands_for_the_clean_latents_and_the_noise(schedule: NoiseSchedule) -> None:
    latents, eps = inputs()
    at = jnp.asarray([0, 640], jnp.int32)
    target = noisy_target(schedule, latents, eps, at)
    np.testing.assert_allclose(clean_from_v(schedule, target.noisy, target.v, at), target.scaled, atol=TOLERANCE)
    np.testing.assert_allclose(noise_from_v(schedule, target.noisy, target.v, at), eps, atol=TOLERANCE)


def test_only_the_rescaled_latents_depend_on_the_switch_at_time_zero() -> None:
    latents, eps = inputs()
    at = jnp.asarray([0, 399], jnp.int32)
    plain, rescaled = (noisy_target(s, latents, eps, at).scaled for s in (WITHOUT_RESCALE, SCHEDULE))
    np.testing.assert_array_equal(plain, latents)
    np.testing.assert_array_equal(rescaled[0], latents[0])
    np.testing.assert_allclose(rescaled[1], np.float32(0.7) * np.asarray(latents[1]), rtol=1e-6)


def test_the_loss_is_each_clip_s_mean_square() -> None:
    prediction, target = inputs()
    expected = [
        np.mean((np.asarray(p, np.float64) - np.asarray(t)) ** 2) for p, t in zip(prediction, target, strict=True)
    ]
    loss = loss_per_sample(prediction, target)
    assert loss.shape == (2,)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)  # sums in float32, in whatever order a version compiles them
