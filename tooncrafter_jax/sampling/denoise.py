"""The guided sampling loop of one model: what the compiled sampler and samples while training run."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt32

from tooncrafter_jax.diffusion.guidance import guide, guide_in_two_stages
from tooncrafter_jax.diffusion.loop import Chunk, Denoise, run_chunk
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.solvers import Carry, Solver
from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions, SketchCondition
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.typing import Latents, Timesteps, Trajectory

Rows = TypeVar("Rows")
"""A tree of arrays with a common leading axis."""


class Guidance(NamedTuple):
    """Strengths of the conditions; all scalars, all traced.

    Attributes:
      scale: of the prompt and the image tokens together, or of the prompt alone in the three-branch variant.
      rescale: share of the prediction brought back to the conditional standard deviation.
      image_scale: of the image tokens; used in the three-branch variant only.
      times: the first and the last diffusion time, both included, at which there is guidance; at others the conditional
        branch alone is computed. None: there is at all times, and the program has no part without it.
    """

    scale: jax.Array | float
    rescale: jax.Array | float
    image_scale: jax.Array | float = 1.0
    times: tuple[jax.Array | np.ndarray, jax.Array | np.ndarray] | None = None


UNGUIDED = Guidance(1.0, 0.0)
"""Of a single branch, which has nothing to be guided by."""
BranchedLatents = Float[Array, "rows T h w C"]
"""Latents of clips in guidance branches."""
Predict = Callable[[BranchedLatents, Timesteps, Conditions], BranchedLatents]
"""Predicts v of independent clips, each of them in some branch."""


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
    frames = conditions.concat.shape[1]

    def predict(noisy: BranchedLatents, times: Timesteps, given: Conditions) -> BranchedLatents:
        noisy = constrain(noisy, "batch", "frames", None, None, None)
        given = given._replace(concat=constrain(given.concat, "batch", "frames", None, None, None))
        v = model.predict_v(noisy, times, given)
        return constrain(v.astype(jnp.float32), "batch", "frames", None, None, None)

    denoise = guided(predict, conditions, guidance, branches=branches, rows_at_a_time=rows_at_a_time)

    def noise_of_row(index: jax.Array) -> Latents:
        if noise is not None:
            return noise[index - chunk.index[0]]
        drawn = clip_noise(seeds, Stream.STEP, jnp.arange(frames), conditions.concat.shape[2:], index)
        return constrain(drawn, None, "frames", None, None, None)

    return run_chunk(solver, denoise, carry, chunk, noise_of_row, with_predictions=with_predictions)


def guided(
    predict: Predict,
    conditions: Conditions,
    guidance: Guidance,
    *,
    branches: int = 1,
    rows_at_a_time: int | None = None,
) -> Denoise:
    """The guided prediction of clips, of predictions of each in every branch.

    Args:
      predict: of clips in some branch.
      conditions: of the clips, with contexts of every branch as in `denoise_chunk`.
      guidance: strengths, and the times at which there is guidance.
      branches: 1 without guidance, 2 with, 3 for the three-branch variant.
      rows_at_a_time: as in `denoise_chunk`.
    """
    batch = conditions.concat.shape[0]
    everywhere = _in_every_branch(conditions, branches)

    def in_branches(count: int, x: Latents, timestep: jax.Array) -> BranchedLatents:
        """Predictions (count * B, T, h, w, C) in the first branches."""
        rows = count * batch
        given = everywhere if count == branches else jax.tree.map(lambda value: value[:rows], everywhere)
        at_a_time = rows_at_a_time if count == branches or rows_at_a_time is None else gcd(rows_at_a_time, rows)
        inputs = (jnp.concatenate([x] * count), jnp.full((rows,), timestep, jnp.int32), given)
        return map_rows(lambda row: predict(*row), inputs, at_a_time or rows)

    def with_guidance(x: Latents, timestep: jax.Array) -> Latents:
        v = in_branches(branches, x, timestep)
        if branches == 2:
            cond, uncond = jnp.split(v, 2)
            return guide(cond, uncond, guidance.scale, guidance.rescale)
        cond, image, uncond = jnp.split(v, 3)
        return guide_in_two_stages(cond, image, uncond, guidance.scale, guidance.image_scale, guidance.rescale)

    def without(x: Latents, timestep: jax.Array) -> Latents:
        return in_branches(1, x, timestep)

    if branches == 1:
        return without
    if guidance.times is None:
        return with_guidance
    first, last = guidance.times

    def denoise(x: Latents, timestep: jax.Array) -> Latents:
        return jax.lax.cond((timestep >= first) & (timestep <= last), with_guidance, without, x, timestep)

    return denoise


def _in_every_branch(conditions: Conditions, branches: int) -> Conditions:
    """Conditions (branches * B, ...), of which the contexts are that already."""

    def repeated(value: jax.Array) -> jax.Array:
        return jnp.concatenate([value] * branches)

    sketch = conditions.sketch
    if sketch is not None:
        sketch = SketchCondition(sketch.context, repeated(sketch.hint_features), repeated(sketch.scale))
    return Conditions(
        repeated(conditions.concat),
        conditions.context,
        repeated(conditions.fps),
        sketch,
        jax.tree.map(repeated, conditions.motion),
    )


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
