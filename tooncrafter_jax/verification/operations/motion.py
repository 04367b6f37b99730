"""Motion guidance: flows at every size, what is carried along them, and the denoiser that they guide."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.nn.warping import warped
from tooncrafter_jax.typing import Params, VideoFeatures
from tooncrafter_jax.verification.inputs import Inputs, Results
from tooncrafter_jax.verification.layout import channels_first, channels_last, frames_in_batch
from tooncrafter_jax.verification.model import VerifiedModel
from tooncrafter_jax.verification.operations import denoiser


def given_motion(inputs: Inputs, clips: int) -> Motion | None:
    """The motion of a case: `flow` (B·(T-2), 4, H, W) and `mask` (B·(T-2), 1, H, W); None where it has none."""
    if not inputs.has("flow"):
        return None
    flows, share = (
        channels_last(inputs.array(name)).reshape(clips, -1, *inputs.array(name).shape[2:], channels)
        for name, channels in (("flow", 4), ("mask", 1))
    )
    return Motion.of_frames_between(jnp.asarray(flows), jnp.asarray(share))


def _needed_motion(inputs: Inputs, clips: int) -> Motion:
    motion = given_motion(inputs, clips)
    if motion is None:
        raise UserError("a case of motion has no flow: give it one")
    return motion


def linear_motion(model: VerifiedModel, inputs: Inputs) -> Results:
    """`flow` (T-2, 4, H, W) and `mask` (T-2, 1, H, W) of motion that is even in time, from whole numbers."""
    del model
    first, last, share = (inputs.array(name).astype(np.float32) for name in ("first", "last", "share"))
    frames = int(inputs.setting("frames", 16))
    time = np.arange(1, frames - 1, dtype=np.float32)[:, None, None, None] / np.float32(frames)
    flow = np.concatenate([time * first / 64, (1 - time) * last / 64], axis=1)
    return {"flow": flow, "mask": (1 - time) * share / 256}


def motion_at_size(model: VerifiedModel, inputs: Inputs) -> Results:
    """`flow` and `mask` of the frames between at another size."""
    del model
    height, width = (int(side) for side in inputs.setting("size"))
    motion = _needed_motion(inputs, 1).at_size(height, width)
    return {"flow": frames_in_batch(motion.flows[:, 1:-1]), "mask": frames_in_batch(motion.share[:, 1:-1])}


def warp(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (N, C, h, w)."""
    del model
    image, flow = (jnp.asarray(channels_last(inputs.array(name))) for name in ("image", "flow"))
    return {"out": channels_first(warped(image, flow))}


def warp_features(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (B, C, T-2, h, w): the frames between."""
    del model
    return {"out": channels_first(_carried(inputs, "features")[:, 1:-1])}


def condition_latents(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (B, C, T, h, w): all frames."""
    del model
    return {"out": channels_first(_carried(inputs, "latents"))}


def _carried(inputs: Inputs, name: str) -> VideoFeatures:
    features = jnp.asarray(channels_last(inputs.array(name)))
    return _needed_motion(inputs, features.shape[0]).at_size(*features.shape[2:4]).carried(features)


def temporal_transformer(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (B, C, T, h, w) of one temporal transformer, by its official name."""
    x, name = channels_last(inputs.array("x")), str(inputs.setting("module"))
    path = model.our_path("unet", f"model.diffusion_model.{name}.proj_in.weight").removesuffix(".proj_in.kernel")
    motion = given_motion(inputs, x.shape[0])

    def run(params: Params, x: VideoFeatures, motion: Motion | None) -> jax.Array:
        module = model.networks["unet"].bind(params)
        for part in path.split("."):
            module = module[int(part)] if part.isdigit() else getattr(module, part)
        return module(x, None if motion is None else motion.at_size(*x.shape[2:4]))

    compiled = model.jit(f"temporal_transformer {name}", run)
    return {"out": channels_first(compiled(model.params("unet")["unet"], jnp.asarray(x), motion))}


def _with_motion(
    operation: Callable[[VerifiedModel, Inputs, Motion | None], Results],
) -> Callable[[VerifiedModel, Inputs], Results]:
    def run(model: VerifiedModel, inputs: Inputs) -> Results:
        return operation(model, inputs, given_motion(inputs, inputs.array("x").shape[0]))

    return run


unet = _with_motion(denoiser.unet)
unet_block_stats = _with_motion(denoiser.unet_block_stats)
unet_gradient = _with_motion(denoiser.unet_gradient)
