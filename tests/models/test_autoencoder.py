"""The encoder gives the reference's moments, latents and hidden states."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import NETWORK_TOLERANCE, channels_first, deviation, golden, noise, tiny_params
from tooncrafter_jax.models.autoencoder import AutoencoderConfig, Posterior
from tooncrafter_jax.models.configuration import tiny, tooncrafter_512
from tooncrafter_jax.weights.rule import unit_noise

HIDDEN_TOLERANCE = 1e-4
"""The reference convolved these in another memory layout than usual, which alone moves hidden states by 4e-5."""


@cache
def _compiled() -> Any:
    network = tiny().networks()["autoencoder"]
    return jax.jit(lambda params, images: network.bind(params)(images))


def encode(images: np.ndarray) -> tuple[jax.Array, list[jax.Array]]:
    return _compiled()(tiny_params("autoencoder"), jnp.asarray(images))


@cache
def crops() -> tuple[jax.Array, list[jax.Array]]:
    """Two pictures of 32x32 as the two frames of a clip."""
    return encode(np.moveaxis(golden("vae_encoder")["image"], 1, -1)[None])


def test_moments_equal_the_reference() -> None:
    moments = channels_first(crops()[0][0])
    assert deviation(moments, golden("vae_encoder")["moments"]) < NETWORK_TOLERANCE


def test_a_height_and_width_of_their_own() -> None:
    """24x40 pixels: the downsampling pads right and below only, which shows at odd sizes (3x5 latent cells)."""
    images = np.clip(noise("fixture.vae.odd", (1, 3, 24, 40)), -1, 1)
    moments = channels_first(encode(images[None])[0][0])
    assert deviation(moments, golden("vae_encoder")["odd_moments"]) < NETWORK_TOLERANCE


def test_the_latent_equals_the_reference() -> None:
    arrays = golden("vae_encoder")
    posterior = Posterior.from_moments(crops()[0])
    assert deviation(channels_first(posterior.mean[0]), arrays["mode"]) < NETWORK_TOLERANCE
    assert deviation(channels_first(posterior.std[0]), arrays["std"]) < NETWORK_TOLERANCE
    sample = posterior.sample(jnp.asarray(noise("fixture.vae.noise", (2, 4, 4, 4))[None]))
    assert deviation(channels_first(sample[0]) * 0.18215, arrays["latent"]) < NETWORK_TOLERANCE


@pytest.mark.parametrize("level", range(5))
def test_hidden_states_equal_the_reference(level: int) -> None:
    arrays, hidden = golden("vae_encoder"), channels_first(crops()[1][level][0])
    channels = slice(None, None, 2) if level in (0, 4) else slice(None)
    assert deviation(hidden[:1, channels], arrays[f"hidden_{level}"]) < HIDDEN_TOLERANCE
    assert deviation(hidden[1:, ::16], arrays[f"hidden_{level}_frame1_strided"]) < HIDDEN_TOLERANCE


def test_shapes_of_the_published_size() -> None:
    """Spec section 4: the hidden states of a 320x512 picture."""
    network = tooncrafter_512().networks()["autoencoder"]
    moments, hidden = jax.eval_shape(
        lambda params, images: network.bind(params)(images),
        network.abstract_params,
        jax.ShapeDtypeStruct((1, 2, 320, 512, 3), jnp.float32),
    )
    assert moments.shape == (1, 2, 40, 64, 8)
    sizes = [(320, 512, 128), (160, 256, 256), (80, 128, 512), (40, 64, 512), (320, 512, 128)]
    assert [h.shape[2:] for h in hidden] == sizes


def test_the_log_variance_is_clipped() -> None:
    moments = jnp.asarray([0.0, -100.0, 0.0, 100.0]).reshape(1, 1, 2, 1, 2)  # (mean, log-variance) twice
    posterior = Posterior.from_moments(moments)
    np.testing.assert_array_equal(posterior.logvar.reshape(-1), [-30, 20])
    np.testing.assert_allclose(posterior.std.reshape(-1), np.exp([-15, 10]), rtol=1e-6)


def test_sampling_scales_noise_by_the_deviation() -> None:
    random = unit_noise("moments", (1, 3, 2, 2, 8))
    eps = unit_noise("noise", (1, 3, 2, 2, 4))
    expected = random[..., :4] + np.exp(0.5 * random[..., 4:]) * eps
    sample = Posterior.from_moments(jnp.asarray(random)).sample(jnp.asarray(eps))
    np.testing.assert_allclose(sample, expected, atol=1e-6)


def test_sizes_that_do_not_fit_are_named() -> None:
    assert AutoencoderConfig().downscaling == 8
    with pytest.raises(ValueError, match="multiples of 8 pixels, not 24x36"):
        encode(np.zeros((1, 1, 24, 36, 3), np.float32))
