"""Latents of a batch's frames by the frozen encoder."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8, UInt32

from tooncrafter_jax.data.transforms import to_pixels
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.dual_reference_decoder import map_chunks
from tooncrafter_jax.nn.logical_axes import constrain, devices_sharing
from tooncrafter_jax.training.components import as_float32
from tooncrafter_jax.typing import Latents, Video

FRAMES_AT_A_TIME = 4
"""Frames that are encoded together: the encoder's activations at full resolution are the largest of a denoiser's step."""


def frame_moments(encode: Callable[[Video], jax.Array], video: UInt8[Array, "B T H W 3"]) -> Float[Array, "B T h w M"]:
    """Moments of all frames, a few at a time unless the rules in force share them out to devices.

    Args:
      encode: frames in [-1, 1] -> moments.
      video: (B, T, H, W, 3) uint8.
    """
    video = constrain(video, "batch", "frames", None, None, None)
    shared = devices_sharing("frames", video.shape[1]) > 1
    return map_chunks(lambda part: encode(to_pixels(part)), video, 1, None if shared else FRAMES_AT_A_TIME)


def sample_posterior(moments: Float[Array, "B T h w M"], seeds: UInt32[Array, "B"]) -> Latents:
    """A draw (B, T, h, w, M / 2) from the posterior of each frame, by the examples' seeds; not yet times the scale factor."""
    posterior = Posterior.from_moments(as_float32(moments))
    frames = jnp.arange(moments.shape[1])
    return posterior.sample(clip_noise(seeds, Stream.POSTERIOR, frames, posterior.mean.shape[2:]))
