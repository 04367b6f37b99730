"""Classifier-free guidance and its rescaling."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import golden, noise
from tooncrafter_jax.diffusion.guidance import guide, guide_in_two_stages

SHAPE = (2, 3, 4, 4, 4)


def predictions() -> list[np.ndarray]:
    """Conditional, image and unconditional; the two clips differ in size."""
    random = np.random.default_rng(0)
    size = np.asarray([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    return [(random.normal(size=SHAPE) * size).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize(("rescale", "name"), [(0.0, "cfg"), (0.7, "cfg_rescaled")])
def test_equal_to_the_reference(rescale: float, name: str) -> None:
    cond, uncond = (jnp.asarray(noise(f"fixture.cfg.{n}", (2, 4, 16, 8, 16))) for n in ("cond", "uncond"))
    ours = np.moveaxis(np.asarray(guide(cond, uncond, 7.5, rescale)), -1, 1)[:, :, :2]
    np.testing.assert_allclose(ours, golden("ddim_step")[name], rtol=1e-6, atol=1e-6 * 20)  # values of up to 20


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_equal_to_the_formula(rescale: float) -> None:
    cond, _, uncond = predictions()
    expected = np.zeros(SHAPE)
    for b in range(2):
        c, u = cond[b].astype(np.float64), uncond[b].astype(np.float64)
        guided = u + 7.5 * (c - u)
        factor = c.std(ddof=1) / guided.std(ddof=1)
        expected[b] = rescale * guided * factor + (1 - rescale) * guided
    np.testing.assert_allclose(guide(jnp.asarray(cond), jnp.asarray(uncond), 7.5, rescale), expected, atol=2e-5)


def test_scale_one_is_the_conditional_prediction() -> None:
    cond, _, uncond = predictions()
    np.testing.assert_allclose(guide(jnp.asarray(cond), jnp.asarray(uncond), 1.0, 0.7), cond, atol=1e-5)


def test_full_rescaling_restores_the_deviation_of_each_clip() -> None:
    cond, _, uncond = predictions()
    guided = np.asarray(guide(jnp.asarray(cond), jnp.asarray(uncond), 7.5, 1.0))
    axes = (1, 2, 3, 4)
    np.testing.assert_allclose(guided.std(axes), cond.std(axes), rtol=1e-5)


def test_two_stages_equal_the_formula() -> None:
    cond, image, uncond = predictions()
    expected = uncond + 2.0 * (image - uncond) + 5.0 * (cond - image)
    args = jnp.asarray(cond), jnp.asarray(image), jnp.asarray(uncond)
    np.testing.assert_allclose(guide_in_two_stages(*args, 5.0, 2.0), expected, atol=2e-5)
    wide = expected.astype(np.float64)
    axes = (1, 2, 3, 4)
    factor = cond.std(axes, ddof=1, keepdims=True) / wide.std(axes, ddof=1, keepdims=True)
    rescaled = 0.7 * wide * factor + 0.3 * wide
    np.testing.assert_allclose(guide_in_two_stages(*args, 5.0, 2.0, 0.7), rescaled, atol=2e-5)


def test_equal_scales_of_two_stages_are_one_stage() -> None:
    cond, image, uncond = (jnp.asarray(x) for x in predictions())
    one = guide(cond, uncond, 7.5, 0.7)
    np.testing.assert_allclose(guide_in_two_stages(cond, image, uncond, 7.5, 7.5, 0.7), one, atol=2e-5)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_predictions_without_deviation_stay_numbers(rescale: float) -> None:
    """As those of a network that starts from zeros."""
    cond, uncond = jnp.full((2, 1, 2, 2, 4), 0.5), jnp.zeros((2, 1, 2, 2, 4))
    found = guide(cond, uncond, jnp.asarray(2.0), rescale)
    np.testing.assert_allclose(found, np.full(cond.shape, 1 - rescale), atol=1e-6)
