"""Prompts and first pictures: tokenizer, CLIP towers and image projector."""

from __future__ import annotations

import numpy as np

from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.verification.inputs import Inputs, Results
from tooncrafter_jax.verification.layout import as_float32, channels_first, channels_last
from tooncrafter_jax.verification.model import VerifiedModel


def tokenize(model: VerifiedModel, inputs: Inputs) -> Results:
    """`tokens` (B, 77), whole numbers."""
    del model
    return {
        "tokens": tokenizer()([str(prompt) for prompt in np.atleast_1d(np.asarray(inputs.value("prompts"), object))])
    }


def text_encoder(model: VerifiedModel, inputs: Inputs) -> Results:
    """`penultimate` (B, 77, D)."""
    tokens = inputs.array("tokens")
    return {"penultimate": as_float32(model.sampler.text(model.params("clip_text"), tokens))}


def image_preprocess(model: VerifiedModel, inputs: Inputs) -> Results:
    """`image` (B, 3, side, side), and `mean_std` (2, B, 3): mean and unbiased standard deviation of each colour."""
    pixels = channels_first(model.sampler.clip_pixels(channels_last(inputs.array("image"))))
    return {"image": pixels, "mean_std": np.stack([pixels.mean((2, 3)), pixels.std((2, 3), ddof=1)])}


def image_encoder(model: VerifiedModel, inputs: Inputs) -> Results:
    """`tokens` (B, 1 + patches, D) of pictures in [-1, 1] of any size."""
    network = model.networks["clip_image"]
    run = model.jit("clip_image", lambda params, pixels: network.bind(params)(pixels))
    pixels = model.sampler.clip_pixels(channels_last(inputs.array("image")))
    return {"tokens": as_float32(run(model.params("clip_image")["clip_image"], pixels))}


def image_projector(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (B, frames · tokens, D)."""
    network = model.networks["image_projector"]
    run = model.jit("image_projector", lambda params, tokens: network.bind(params)(tokens))
    return {"out": as_float32(run(model.params("image_projector")["image_projector"], inputs.array("tokens")))}
