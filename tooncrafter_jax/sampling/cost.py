"""What a run of the denoiser costs: its passes, and their floating-point operations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import solver_named
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions, Kept
from tooncrafter_jax.models.unet_blocks import TEXT_TOKENS
from tooncrafter_jax.nn.platform import tracing_for, without_cpu_forms
from tooncrafter_jax.runtime.flops import forward_flops
from tooncrafter_jax.sampling.feature_reuse import Reuse
from tooncrafter_jax.sampling.guidance_interval import guided_times
from tooncrafter_jax.sampling.sampling_options import SamplingOptions
from tooncrafter_jax.typing import AllParams, Latents


class Passes(NamedTuple):
    """Passes of the denoiser for one clip, over a whole run.

    Attributes:
      whole: with all layers.
      partial: of the outermost blocks alone.
    """

    whole: int
    partial: int


def passes(config: ModelConfig, options: SamplingOptions) -> Passes:
    """How often the denoiser runs for one clip."""
    schedule = NoiseSchedule(config.schedule)
    timesteps = np.asarray(solver_named(options.solver).rows(schedule, options.solver_options).timestep)
    guided = guided_times(options.guidance_interval, schedule) if options.branches > 1 else None
    branches = np.full(len(timesteps), options.branches)
    if guided is not None:
        branches[(timesteps < guided[0]) | (timesteps > guided[1])] = 1
    fresh = np.ones(len(timesteps), bool)
    if options.reuse is not None:
        fresh = Reuse.parse(options.reuse, config.unet).fresh(timesteps, guided)
    return Passes(int(branches[fresh].sum()), int(branches[~fresh].sum()))


def denoiser_flops(config: ModelConfig, options: SamplingOptions) -> float:
    """Operations of all passes of the denoiser for one clip of the options' frames and size, without sketches.

    Keys and values of the contexts are left out: they are computed once, not in every pass.
    """
    count = passes(config, options)
    networks = config.networks("float32")

    def model(params: AllParams) -> BoundModel:
        return BoundModel(config, lambda name: networks[name].bind(params[name]))

    height, width = (side // config.autoencoder.downscaling for side in options.size(config))
    params: AllParams = {"unet": networks["unet"].abstract_params}
    x = jax.ShapeDtypeStruct((1, options.frames, height, width, config.unet.out_channels), jnp.float32)
    tokens = TEXT_TOKENS + config.image_projector.queries_per_frame * config.image_projector.frames
    context = jax.ShapeDtypeStruct((1, tokens, config.unet.context_dim), jnp.float32)
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    with tracing_for("cpu"), without_cpu_forms():
        keys = jax.eval_shape(lambda p, c: model(p).context_keys(c, options.frames), params, context)
        conditions = Conditions(x, keys, number)  # pyright: ignore[reportArgumentType]

        def whole(params: AllParams, x: Latents, times: jax.Array, given: Conditions) -> Latents:
            return model(params).predict_v(x, times, given)

        found = count.whole * forward_flops(whole, params, x, number, conditions)
        if count.partial and options.reuse is not None:
            blocks = Reuse.parse(options.reuse, config.unet).blocks

            def kept_of(params: AllParams, x: Latents, times: jax.Array, given: Conditions) -> Kept:
                return model(params).predict_keeping(x, times, given, blocks)[1]

            kept = jax.eval_shape(kept_of, params, x, number, conditions)

            def partial(params: AllParams, x: Latents, times: jax.Array, given: Conditions, kept: Kept) -> Latents:
                return model(params).predict_reusing(x, times, given, kept, blocks)

            found += count.partial * forward_flops(partial, params, x, number, conditions, kept)
    return found
