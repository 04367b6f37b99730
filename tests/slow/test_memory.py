"""Memory of the compiled programs, as tables (make test-slow)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tooncrafter_jax.diffusion.loop import chunks
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.models.configuration import ModelConfig, tiny, tooncrafter_512
from tooncrafter_jax.models.tooncrafter import Conditions
from tooncrafter_jax.sampling.denoise import Guidance
from tooncrafter_jax.sampling.sampler import Sampler

MIB = 2**20


def abstract(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def abstract_params(config: ModelConfig) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    return {name: network.abstract_params for name, network in config.networks().items()}


def temporary_bytes(lowered: jax.stages.Lowered) -> int:
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.slow
def test_the_loops_memory_does_not_grow_with_the_steps() -> None:
    """One compiled scan over the whole run, for three lengths: the temporary memory is the same to 1 %."""
    config, params = tiny(), abstract_params(tiny())
    sampler = Sampler(config, config.networks())
    context = jax.eval_shape(lambda p, c: sampler.context_keys(p, c, frames=16), params, abstract(2, 333, 64))
    conditions = Conditions(abstract(1, 16, 8, 16, 4), context, abstract(1, dtype=jnp.int32))
    ddim = SOLVERS["ddim"]
    seeds, temporary = abstract(1, dtype=jnp.uint32), {}
    for count in (5, 25, 50):
        chunk = next(chunks(ddim.rows(NoiseSchedule(config.schedule), SolverOptions(steps=count)), count))
        latents = abstract(1, 16, 8, 16, 4)
        arguments = (params, latents, chunk, seeds, conditions, Guidance(abstract(), abstract(), abstract()))
        lowered = sampler.denoise.lower(*arguments, solver=ddim, branches=2)
        temporary[count] = temporary_bytes(lowered)
        print(f"{count:3} steps: {temporary[count] / MIB:8.2f} MiB temporary")
    assert max(temporary.values()) < 1.01 * min(temporary.values())


@pytest.mark.slow
def test_the_decoders_memory_is_bounded_by_the_chunk() -> None:
    """The published decoder at 320x512, 16 frames, float32."""
    config = tooncrafter_512()
    params = abstract_params(config)
    sampler = Sampler(config, config.networks())
    hidden_widths = [(128, 1), (256, 2), (512, 4), (512, 8), (128, 1)]
    hidden = [abstract(1, 2, 320 // d, 512 // d, c) for c, d in hidden_widths]
    network = sampler.networks["decoder"]
    references = jax.eval_shape(lambda p, h: network.bind(p).prepare_references(h), params["decoder"], hidden)
    temporary = {}
    for chunk in (None, 8, 4, 2, 1):
        lowered = sampler.decode.lower(params, abstract(1, 16, 40, 64, 4), references, frames_per_chunk=chunk)
        temporary[chunk] = temporary_bytes(lowered)
        print(f"frames_per_chunk {chunk or 'all':>4}: {temporary[chunk] / MIB:8.0f} MiB temporary")
    sizes = [temporary[chunk] for chunk in (None, 8, 4, 2, 1)]
    assert sizes == sorted(sizes, reverse=True), "a smaller chunk never needs more"
    whole_clip = 16 * 320 * 512 * 128 * 4  # of which the convolutions over time need two
    assert temporary[1] < 2.2 * whole_clip
    assert temporary[4] < 3.1 * whole_clip
