"""The guided sampling loop of one model: what the compiled sampler and samples while training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32

from tooncrafter_jax.diffusion.guidance import guide, guide_in_two_stages
from tooncrafter_jax.diffusion.loop import Chunk, run_chunk
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.solvers import Carry, Solver
from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions, SketchCondition
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.typing import Latents, Trajectory

Rows = TypeVar("Rows")
"""A tree of arrays with a common leading axis."""


class Guidance(NamedTuple):
    """Strengths of the conditions; all scalars, all traced.

    Attributes:
      scale: of the prompt and the image tokens together, or of the prompt alone in the three-branch variant.
      rescale: share of the prediction brought back to the conditional standard deviation.
      image_scale: of the image tokens; used in the three-branch variant only.
    """

    scale: jax.Array | float
    rescale: jax.Array | float
    image_scale: jax.Array | float = 1.0


UNGUIDED = Guidance(1.0, 0.0)
"""Of a single branch, which has nothing to be guided by."""


def denoise_chunk(
    model: BoundModel,
    carry: Carry,
    chunk: Chunk,
    seeds: UInt32[Array, "B"],
    conditions: Conditions,
    guidance: Guidance = UNGUIDED,
    *,
    solver: Solver,
    branches: int = 1,
    rows_at_a_time: int | None = None,
    with_predictions: bool = False,
    noise: Trajectory | None = None,
) -> tuple[Carry, Trajectory | None]:
    """A chunk of sampling steps.

    Args:
      model: components `unet` and, with sketches, `sketch_encoder`.
      carry: the solver's, before the chunk.
      chunk: the solver's rows.
      seeds: (B,) uint32.
      conditions: of the clips; contexts are those of every branch, one after another: conditional, (image),
        unconditional.
      guidance: strengths.
      solver: what is made of the predictions.
      branches: 1 without guidance, 2 with, 3 for the three-branch variant.
      rows_at_a_time: clips in some branch that are predicted together; must divide them all. None for all.
      with_predictions: whether to return the clean latents predicted at each step.
      noise: (rows, B, T, h, w, C), replaces the noise drawn from the seeds.

    Returns:
      The carry after the chunk, and the predictions (rows, B, T, h, w, C) or None.
    """
    batch, frames = conditions.concat.shape[:2]
    sketch, rows = conditions.sketch, branches * batch

    def every_branch(value: jax.Array) -> jax.Array:
        return jnp.concatenate([value] * branches)

    branched = Conditions(
        every_branch(conditions.concat),
        conditions.context,
        every_branch(conditions.fps),
        motion=jax.tree.map(every_branch, conditions.motion),
    )
    if sketch is not None:
        features, scale = every_branch(sketch.hint_features), every_branch(sketch.scale)
        branched = branched._replace(sketch=SketchCondition(sketch.context, features, scale))

    def predict(rows: tuple[Latents, jax.Array, Conditions]) -> Latents:
        """The prediction for some rows: clips in some branch."""
        noisy, times, given = rows
        noisy = constrain(noisy, "batch", "frames", None, None, None)
        given = given._replace(concat=constrain(given.concat, "batch", "frames", None, None, None))
        v = model.predict_v(noisy, times, given)
        return constrain(v.astype(jnp.float32), "batch", "frames", None, None, None)

    def denoise(x: Latents, timestep: jax.Array) -> Latents:
        times = jnp.full((rows,), timestep, jnp.int32)
        v = map_rows(predict, (every_branch(x), times, branched), rows_at_a_time or rows)
        if branches == 1:
            return v
        if branches == 2:
            cond, uncond = jnp.split(v, 2)
            return guide(cond, uncond, guidance.scale, guidance.rescale)
        cond, image, uncond = jnp.split(v, 3)
        return guide_in_two_stages(cond, image, uncond, guidance.scale, guidance.image_scale, guidance.rescale)

    def noise_of_row(index: jax.Array) -> Latents:
        if noise is not None:
            return noise[index - chunk.index[0]]
        drawn = clip_noise(seeds, Stream.STEP, jnp.arange(frames), conditions.concat.shape[2:], index)
        return constrain(drawn, None, "frames", None, None, None)

    return run_chunk(solver, denoise, carry, chunk, noise_of_row, with_predictions=with_predictions)


def map_rows(fn: Callable[[Rows], Shaped[Array, "some ..."]], rows: Rows, at_a_time: int) -> Shaped[Array, "rows ..."]:
    """fn(rows), for a tree of arrays with a common leading axis, computed on `at_a_time` entries of it at a time.

    Args:
      fn: treats the entries independently.
      rows: a tree of arrays (rows, ...).
      at_a_time: must divide the number of rows, unless it is larger.

    Returns:
      (rows, ...).
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if at_a_time >= count:
        return fn(rows)
    groups = jax.tree.map(lambda x: x.reshape(count // at_a_time, at_a_time, *x.shape[1:]), rows)
    out = jax.lax.map(fn, groups)
    return out.reshape(count, *out.shape[2:])
