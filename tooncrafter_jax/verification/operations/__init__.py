"""The operations of a manifest, each run by our code: (model, inputs) -> result's name -> array in PyTorch layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tooncrafter_jax.verification.inputs import Inputs, Results
from tooncrafter_jax.verification.model import VerifiedModel
from tooncrafter_jax.verification.operations import conditioning, denoiser, diffusion, first_stage, motion, pipelines

Run = Callable[[VerifiedModel, Inputs], Results]

COMPONENT_TOLERANCE = 5e-5
"""Largest error of a single component in float32, relative to the array's standard deviation."""
EMBEDDING_TOLERANCE = 1e-4
"""The same for sinusoids: where two good exponentials differ by an ulp, the angle at time 999 differs by 6e-5
radians.
"""
HIDDEN_STATES_TOLERANCE = 1e-4
"""The same for the encoder's hidden states: the published code itself differs by 4e-5 between memory layouts."""
DEEP_TOLERANCE = 3e-4
"""The same for gradients and whole pipelines."""


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
      run: computes its results.
      tolerance: largest error in float32, relative to the array's standard deviation.
    """

    run: Run
    tolerance: float = COMPONENT_TOLERANCE


OPERATIONS: dict[str, Operation] = {
    "timestep_embedding": Operation(diffusion.timestep_embedding, EMBEDDING_TOLERANCE),
    "schedule": Operation(diffusion.schedule),
    "sampler_schedule": Operation(diffusion.sampler_schedule),
    "guidance": Operation(diffusion.guidance),
    "ddim_step": Operation(diffusion.one_ddim_step),
    "losses": Operation(diffusion.losses),
    "unet": Operation(denoiser.unet),
    "unet_block_stats": Operation(denoiser.unet_block_stats),
    "unet_gradient": Operation(denoiser.unet_gradient, DEEP_TOLERANCE),
    "sketch_encoder": Operation(denoiser.sketch_encoder),
    "unet_with_control": Operation(denoiser.unet_with_control),
    "linear_motion": Operation(motion.linear_motion),
    "motion_at_size": Operation(motion.motion_at_size),
    "warp": Operation(motion.warp),
    "warp_features": Operation(motion.warp_features),
    "condition_latents": Operation(motion.condition_latents),
    "temporal_transformer_with_motion": Operation(motion.temporal_transformer),
    "unet_with_motion": Operation(motion.unet),
    "unet_block_stats_with_motion": Operation(motion.unet_block_stats),
    "unet_gradient_with_motion": Operation(motion.unet_gradient, DEEP_TOLERANCE),
    "tokenizer": Operation(conditioning.tokenize),
    "text_encoder": Operation(conditioning.text_encoder),
    "image_preprocess": Operation(conditioning.image_preprocess),
    "image_encoder": Operation(conditioning.image_encoder),
    "image_projector": Operation(conditioning.image_projector),
    "encoder": Operation(first_stage.encoder),
    "encoder_hidden": Operation(first_stage.encoder_hidden, HIDDEN_STATES_TOLERANCE),
    "decoder": Operation(first_stage.decoder),
    "decoder_intermediate": Operation(first_stage.decoder_intermediate),
    "plain_decoder": Operation(first_stage.plain_decoder),
    "pipeline_inference": Operation(pipelines.inference, DEEP_TOLERANCE),
    "pipeline_motion": Operation(pipelines.with_motion, DEEP_TOLERANCE),
    "pipeline_multicond": Operation(pipelines.inference, DEEP_TOLERANCE),
    "pipeline_app": Operation(pipelines.application, DEEP_TOLERANCE),
    "pipeline_sketch": Operation(pipelines.application, DEEP_TOLERANCE),
}
"""Name in a manifest -> operation."""
