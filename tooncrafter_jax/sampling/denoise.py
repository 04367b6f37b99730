"""The guided sampling loop of one model: what the compiled sampler and samples while training run."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from tooncrafter_jax.diffusion.guidance import guide, guide_in_two_stages
from tooncrafter_jax.diffusion.loop import Chunk, Denoise, Memory, RememberingDenoise, run_chunk, run_remembering_chunk
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.solvers import Carry, Solver
from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions, Kept, SketchCondition
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.typing import Latents, Timesteps, Trajectory

Rows = TypeVar("Rows")
Made = TypeVar("Made")
"""Trees of arrays with a common leading axis."""


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
RememberingPredict = Callable[
    [BranchedLatents, Timesteps, Conditions, Memory, Bool[Array, ""]], tuple[BranchedLatents, Memory]
]
"""The same, of a network that uses what its predictions leave for those after them, of every clip in every branch; the
last argument says whether that is made anew.
"""


class Remembered(NamedTuple):
    """The carry of a run that reuses features.

    Attributes:
      carry: the solver's.
      kept: of the last whole prediction, for every clip in every branch.
    """

    carry: Carry
    kept: Kept


def denoise_chunk(
    model: BoundModel,
    carry: Carry | Remembered,
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
    reused_blocks: int | None = None,
) -> tuple[Carry | Remembered, Trajectory | None]:
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
      reused_blocks: where the chunk says that a prediction is not fresh, so many outermost blocks of the denoiser are
        computed, from what the last fresh one left; `carry` is `Remembered` then.

    Returns:
      The carry after the chunk, and the predictions (rows, B, T, h, w, C) or None.
    """
    frames = conditions.concat.shape[1]

    def laid_out(x: BranchedLatents) -> BranchedLatents:
        return constrain(x, "batch", "frames", None, None, None)

    def predict(noisy: BranchedLatents, times: Timesteps, given: Conditions) -> BranchedLatents:
        given = given._replace(concat=laid_out(given.concat))
        return laid_out(model.predict_v(laid_out(noisy), times, given).astype(jnp.float32))

    def predict_again(
        noisy: BranchedLatents, times: Timesteps, given: Conditions, kept: Kept, is_fresh: Bool[Array, ""]
    ) -> tuple[BranchedLatents, Kept]:
        given, blocks = given._replace(concat=laid_out(given.concat)), reused_blocks or 0

        def whole(noisy: BranchedLatents, kept: Kept) -> tuple[BranchedLatents, Kept]:
            v, kept = model.predict_keeping(noisy, times, given, blocks)
            return laid_out(v.astype(jnp.float32)), jax.tree.map(laid_out, kept)

        def outermost(noisy: BranchedLatents, kept: Kept) -> tuple[BranchedLatents, Kept]:
            v = model.predict_reusing(noisy, times, given, kept, blocks)
            return laid_out(v.astype(jnp.float32)), kept

        return jax.lax.cond(is_fresh, whole, outermost, laid_out(noisy), kept)

    def noise_of_row(index: jax.Array) -> Latents:
        if noise is not None:
            return noise[index - chunk.index[0]]
        drawn = clip_noise(seeds, Stream.STEP, jnp.arange(frames), conditions.concat.shape[2:], index)
        return constrain(drawn, None, "frames", None, None, None)

    how = {"branches": branches, "rows_at_a_time": rows_at_a_time}
    if not isinstance(carry, Remembered):
        denoise = guided(predict, conditions, guidance, **how)
        return run_chunk(solver, denoise, carry, chunk, noise_of_row, with_predictions=with_predictions)
    again = guided_remembering(predict_again, conditions, guidance, **how)
    inner, kept, predictions = run_remembering_chunk(
        solver, again, carry.carry, carry.kept, chunk, noise_of_row, with_predictions=with_predictions
    )
    return Remembered(inner, kept), predictions


def guided(
    predict: Predict,
    conditions: Conditions,
    guidance: Guidance,
    *,
    branches: int = 1,
    rows_at_a_time: int | None = None,
) -> Denoise:
    """`guided_remembering` for a network whose predictions leave nothing to each other."""

    def forgetting(
        x: BranchedLatents, times: Timesteps, given: Conditions, memory: Memory, is_fresh: Bool[Array, ""]
    ) -> tuple[BranchedLatents, Memory]:
        return predict(x, times, given), memory

    denoise = guided_remembering(forgetting, conditions, guidance, branches=branches, rows_at_a_time=rows_at_a_time)
    return lambda x, timestep: denoise(x, timestep, (), jnp.asarray(True))[0]


def guided_remembering(
    predict: RememberingPredict,
    conditions: Conditions,
    guidance: Guidance,
    *,
    branches: int = 1,
    rows_at_a_time: int | None = None,
) -> RememberingDenoise:
    """The guided prediction of clips, of predictions of each in every branch.

    Where some times are without guidance, what is left for the other branches stays as it is then: a prediction that
    is guided again has to be a fresh one.

    Args:
      predict: of clips in some branch.
      conditions: of the clips, with contexts of every branch as in `denoise_chunk`.
      guidance: strengths, and the times at which there is guidance.
      branches: 1 without guidance, 2 with, 3 for the three-branch variant.
      rows_at_a_time: as in `denoise_chunk`.
    """
    batch = conditions.concat.shape[0]
    everywhere = _in_every_branch(conditions, branches)

    def in_branches(
        count: int, x: Latents, timestep: jax.Array, memory: Memory, is_fresh: Bool[Array, ""]
    ) -> tuple[BranchedLatents, Memory]:
        """Predictions (count * B, T, h, w, C) in the first branches."""
        rows = count * batch
        given, own = everywhere, memory
        at_a_time = rows_at_a_time
        if count != branches:
            given, own = jax.tree.map(lambda value: value[:rows], (everywhere, memory))
            at_a_time = None if rows_at_a_time is None else gcd(rows_at_a_time, rows)
        inputs = (jnp.concatenate([x] * count), jnp.full((rows,), timestep, jnp.int32), given, own)
        v, left = map_rows(lambda row: predict(*row, is_fresh), inputs, at_a_time or rows)
        if count != branches:
            left = jax.tree.map(lambda whole, part: whole.at[:rows].set(part), memory, left)
        return v, left

    def with_guidance(
        x: Latents, timestep: jax.Array, memory: Memory, is_fresh: Bool[Array, ""]
    ) -> tuple[Latents, Memory]:
        v, left = in_branches(branches, x, timestep, memory, is_fresh)
        if branches == 2:
            cond, uncond = jnp.split(v, 2)
            return guide(cond, uncond, guidance.scale, guidance.rescale), left
        cond, image, uncond = jnp.split(v, 3)
        return guide_in_two_stages(cond, image, uncond, guidance.scale, guidance.image_scale, guidance.rescale), left

    def without(x: Latents, timestep: jax.Array, memory: Memory, is_fresh: Bool[Array, ""]) -> tuple[Latents, Memory]:
        return in_branches(1, x, timestep, memory, is_fresh)

    if branches == 1:
        return without
    if guidance.times is None:
        return with_guidance
    first, last = guidance.times

    def denoise(x: Latents, timestep: jax.Array, memory: Memory, is_fresh: Bool[Array, ""]) -> tuple[Latents, Memory]:
        is_guided = (timestep >= first) & (timestep <= last)
        return jax.lax.cond(is_guided, with_guidance, without, x, timestep, memory, is_fresh)

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


def map_rows(fn: Callable[[Rows], Made], rows: Rows, at_a_time: int) -> Made:
    """fn(rows), for a tree of arrays with a common leading axis, computed on `at_a_time` entries of it at a time.

    Args:
      fn: treats the entries independently.
      rows: a tree of arrays (rows, ...).
      at_a_time: must divide the number of rows, unless it is larger.

    Returns:
      A tree of arrays (rows, ...).
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if at_a_time >= count:
        return fn(rows)
    groups = jax.tree.map(lambda x: x.reshape(count // at_a_time, at_a_time, *x.shape[1:]), rows)
    out = jax.lax.map(fn, groups)
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), out)
