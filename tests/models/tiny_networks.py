"""Compiled networks of the reference's widths, shared by the tests that need the same graph."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from tests.reference import noise, tiny_params
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.weights.rule import unit_noise

CONTROL_SHAPES = [(8, 16, 64)] * 3 + [(4, 8, 64)] + [(4, 8, 128)] * 2 + [(2, 4, 128)] + [(2, 4, 256)] * 2
CONTROL_SHAPES += [(1, 2, 256)] * 4
"""(h, w, C) of the denoiser's twelve skips and of its middle, for latents of 8x16."""


def ints(*values: int) -> jax.Array:
    """Times or frame rates."""
    return jnp.asarray(values, jnp.int32)


def values(name: str, *shape: int) -> jax.Array:
    """Noise of this name in our own layout."""
    return jnp.asarray(unit_noise(name, shape))


def tiny_inputs() -> tuple[jax.Array, jax.Array]:
    """The clips (2, 16, 8, 16, 8) and the context (2, 333, 64) of the reference."""
    return jnp.asarray(noise("fixture.unet.x", (2, 8, 16, 8, 16))), values("fixture.unet.context", 2, 333, 64)


def no_controls(batch: int, frames: int) -> list[jax.Array]:
    """Residuals that add nothing."""
    return [jnp.zeros((batch, frames, *shape)) for shape in CONTROL_SHAPES]


@cache
def run_unet() -> Any:
    """(x, timesteps, context, fps, controls) -> prediction, and mean, std and six first values of each block."""
    network = tiny().networks()["unet"]

    @jax.jit
    def run(params: Any, x: Any, timesteps: Any, context: Any, fps: Any, controls: Any) -> Any:
        statistics = []

        def observe(name: str, value: jax.Array) -> None:
            first = value if value.ndim == 2 else jnp.moveaxis(value[0, 0], -1, 0)
            statistics.append(jnp.stack([value.mean(), value.std(ddof=1), *first.reshape(-1)[:6]]))

        unet = network.bind(params)
        keys = unet.context_keys(context, x.shape[1])
        return unet(x, timesteps, keys, fps, controls=controls, observe=observe), jnp.stack(statistics)

    return lambda *args: run(tiny_params("unet"), *args)
