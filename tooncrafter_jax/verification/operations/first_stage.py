"""The KL encoder, the dual-reference decoder and the plain decoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.typing import Latents, Params
from tooncrafter_jax.verification.inputs import Inputs, Results
from tooncrafter_jax.verification.layout import channels_last, frames_in_batch, images_as_clip
from tooncrafter_jax.verification.model import VerifiedModel

PUBLISHED_LEVELS = 4
"""Resolutions of the published decoder; its last reference module is number 4 (spec section 5.1)."""


def _encode(model: VerifiedModel, inputs: Inputs) -> tuple[jax.Array, list[jax.Array]]:
    """Moments (1, N, h, w, 2C) and hidden states (1, N, H, W, C) of pictures.

    Without the check of the size that users' pictures get: an odd row is legal in the published code.
    """
    network = model.networks["autoencoder"]

    def run(params: Params, images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        autoencoder = network.bind(params)
        moments, hidden = autoencoder.encoder(images)
        return autoencoder.moments(moments), hidden

    images = images_as_clip(inputs.array("image"))
    return model.jit("autoencoder", run)(model.params("autoencoder")["autoencoder"], images)


def encoder(model: VerifiedModel, inputs: Inputs) -> Results:
    """`moments` (N, 2C, h, w), `mode`, `std` (N, C, h, w) and, with noise, the scaled `latent`."""
    moments, _ = _encode(model, inputs)
    posterior = Posterior.from_moments(moments)
    results = {"moments": moments, "mode": posterior.mean, "std": posterior.std}
    if inputs.has("noise"):
        latent = model.config.schedule.scale_factor * posterior.sample(
            jnp.asarray(images_as_clip(inputs.array("noise")))
        )
        results["latent"] = latent
    return {name: frames_in_batch(value) for name, value in results.items()}


def encoder_hidden(model: VerifiedModel, inputs: Inputs) -> Results:
    """`hidden_i` (N, C, H, W): what the decoder is handed over, one of every level and last the first convolution's."""
    _, hidden = _encode(model, inputs)
    return {f"hidden_{i}": frames_in_batch(value) for i, value in enumerate(hidden)}


def _decode(model: VerifiedModel, inputs: Inputs) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Frames (B, T, H, W, 3) and the output of every stage by our names."""
    network = model.networks["decoder"]

    def run(params: Params, latents: Latents, hidden: list[jax.Array] | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        decoder, stages = network.bind(params), {}
        references = None if hidden is None else decoder.prepare_references(hidden)
        return decoder(latents, references, observe=stages.__setitem__), stages

    z = channels_last(inputs.array("z"))
    latents = z.reshape(-1, inputs.setting("frames", len(z)), *z.shape[1:])
    hidden = None
    if inputs.has("references"):
        hidden = [channels_last(np.asarray(reference, np.float32)) for reference in inputs.value("references")]
    return model.jit("decoder", run)(model.params("decoder")["decoder"], latents, hidden)


def decoder(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (T, 3, H, W)."""
    out, _ = _decode(model, inputs)
    return {"out": frames_in_batch(out)}


def decoder_intermediate(model: VerifiedModel, inputs: Inputs) -> Results:
    """The output of every stage by its official name, (T, C, H, W).

    The last reference module has the number of levels for its name; in a smaller decoder also the published one's. The
    published residual injections work in place: what was recorded of the block before has the references already.
    """
    network = model.networks["decoder"]
    _, stages = _decode(model, inputs)
    config, levels = model.config.decoder, len(model.config.decoder.multipliers)
    names = {
        "conv_in": "conv_in",
        "mid_block_1": "mid.blocks.0",
        "mid_attn_1": "mid.attention",
        "mid_block_2": "mid.blocks.1",
        f"refine_{levels}": "final_reference",
    }
    names.setdefault(f"refine_{max(PUBLISHED_LEVELS, levels)}", "final_reference")
    for level in range(levels):
        for block in range(config.blocks_per_level + 1):
            names[f"up_{level}_block_{block}"] = f"up.{level}.blocks.{block}"
        injects_in_place = f"up.{level}.reference_residual.conv.kernel" in network.abstract_params
        if injects_in_place and f"up.{level}.reference" in stages:
            names[f"up_{level}_block_{config.blocks_per_level}"] = f"up.{level}.reference"
        names[f"refine_{level}"] = f"up.{level}.reference"
        names[f"up_{level}_upsample"] = f"up.{level}.upsample"
    return {name: frames_in_batch(stages[ours]) for name, ours in names.items() if ours in stages}


def plain_decoder(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (N, 3, H, W) of a decoder without video parts, after its 1x1 convolution."""
    network, params = model.plain_decoder
    run = model.jit("plain_decoder", lambda params, latents: network.bind(params)(latents))
    return {"out": frames_in_batch(run(params, images_as_clip(inputs.array("z"))))}
