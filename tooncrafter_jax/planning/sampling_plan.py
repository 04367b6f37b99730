"""Plans the denoising loop of sampled clips."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tooncrafter_jax.diffusion.loop import chunks
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import solver_named
from tooncrafter_jax.diffusion.solvers.solver import number_of_rows
from tooncrafter_jax.models.tooncrafter import Conditions
from tooncrafter_jax.models.unet_blocks import TEXT_TOKENS
from tooncrafter_jax.nn.platform import tracing_for
from tooncrafter_jax.planning.plan import Plan, bytes_of, compiled_plan, latent_shape
from tooncrafter_jax.planning.planned_sampler import placed, planned_sampler
from tooncrafter_jax.planning.topologies import Topology
from tooncrafter_jax.runtime.flops import Flops
from tooncrafter_jax.sampling.cost import denoiser_flops
from tooncrafter_jax.sampling.denoise import Guidance, Remembered
from tooncrafter_jax.sampling.feature_reuse import Reuse
from tooncrafter_jax.sampling.sampler import Sampler
from tooncrafter_jax.sampling.sampling_options import SamplingOptions
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.typing import AllParams, Dtype, JsonObject, PyTree
from tooncrafter_jax.weights.eight_bits import abstract_in_eight_bits, checked_weight_dtype


def plan_sampling(
    config: TrainConfig,
    topology: Topology,
    pairs: int,
    weight_dtype: Dtype | None = None,
    options: JsonObject | None = None,
) -> Plan:
    """Compiles the denoising loop of `pairs` clips for a topology.

    Operations of the plan are those of the whole run. The compiled program's are those of all branches of the loop, of
    which it takes one a step.

    Args:
      config: the architecture, and the size of a clip.
      topology: what to compile for.
      pairs: that are sampled together.
      weight_dtype: one of `eight_bits.WEIGHT_DTYPES` for the large weights; None for that of the computation.
      options: how to sample, by the names of `SamplingOptions`; all others are as the published script has them.

    Raises:
      UserError: as `plan_training`, or there are no pairs, or no such dtype or option.
    """
    held_in = checked_weight_dtype(weight_dtype)
    sampler, how = planned_sampler(config, topology, pairs, "sampling", options)
    model = sampler.config
    args = sampling_arguments(config, sampler, how, pairs, held_in)
    reuse = None if how.reuse is None else Reuse.parse(how.reuse, model.unet)
    with tracing_for(topology.platform):
        lowered = sampler.denoise.lower(
            *args,
            solver=solver_named(how.solver),
            branches=how.branches,
            in_sequence=how.sequential_guidance and how.branches > 1,
            reused_blocks=None if reuse is None else reuse.blocks,
        )
    params, *others = args
    arguments = {"parameters": bytes_of(params), "inputs": bytes_of(others)}
    minimum = Flops(forward=pairs * denoiser_flops(model, how))
    return compiled_plan("sampling", topology, sampler.mesh, pairs, lowered, arguments, minimum)


def sampling_arguments(
    config: TrainConfig,
    sampler: Sampler,
    options: SamplingOptions,
    pairs: int,
    weight_dtype: Dtype | None,
) -> tuple[PyTree, ...]:
    """Shapes of what `Sampler.denoise` is given, all rows in one chunk, without sketches.

    Args:
      config: the size of a clip, and the dtype of the computation.
      sampler: of the model.
      options: how to sample.
      pairs: that are sampled together.
      weight_dtype: of the large weights, if that is one of 8 bits; None for that of the computation.
    """
    model = sampler.config

    def shape(*sides: int, dtype: Dtype = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sides, dtype, sharding=sampler.layout(sides))

    held: AllParams = {"unet": sampler.networks["unet"].abstract_params}
    if weight_dtype is not None:
        held = abstract_in_eight_bits(held, weight_dtype)
    params = placed(held, sampler)
    latents = shape(pairs, *latent_shape(config, model))
    tokens = TEXT_TOKENS + model.image_projector.queries_per_frame * model.image_projector.frames
    branches = options.branches
    context = shape(branches * pairs, tokens, model.unet.context_dim, dtype=jnp.dtype(config.dtype))
    keys = jax.eval_shape(lambda p, c: sampler.context_keys(p, c, frames=options.frames), params, context)
    solver, schedule = solver_named(options.solver), NoiseSchedule(model.schedule)
    rows = solver.rows(schedule, options.solver_options)
    (chunk,) = chunks(rows, number_of_rows(rows))
    carry = jax.eval_shape(solver.init, latents)
    if options.reuse is not None:
        kept = jax.eval_shape(
            lambda: sampler.nothing_kept.inline(
                rows=branches * pairs,
                frames=options.frames,
                frame_size=latents.shape[2:4],
                blocks=Reuse.parse(options.reuse or "", model.unet).blocks,
                with_controls=False,
            )
        )
        carry = Remembered(carry, kept)
    scalar, whole_number = shape(), shape(dtype=jnp.int32)
    times = None if options.guidance_interval is None or branches == 1 else (whole_number, whole_number)
    guidance = Guidance(scalar, scalar, scalar, times)  # pyright: ignore[reportArgumentType]
    fps = shape(pairs, dtype=jnp.int32)
    conditions = Conditions(latents, placed(keys, sampler), fps)  # pyright: ignore[reportArgumentType]
    return (
        params,
        placed(carry, sampler),
        placed(jax.tree.map(jnp.asarray, chunk), sampler),
        shape(pairs, dtype=jnp.uint32),
        conditions,
        guidance,
    )
