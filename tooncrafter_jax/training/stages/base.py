"""The stage `base`: a motion prior from nothing, on clips of any kind (spec section 8.3)."""

from __future__ import annotations

from tooncrafter_jax.training.stages.denoising import Denoising


class Base(Denoising):
    """The whole denoiser; light text and image towers may be trained with it."""

    trains = ("projector", "spatial", "temporal", "image_kv", "fps")
    may_train = (*trains, "clip_text", "clip_image")
    fresh = ("unet", "image_projector", "clip_text", "clip_image")
    """Autoencoder and decoder must be given, or latents would mean nothing."""
