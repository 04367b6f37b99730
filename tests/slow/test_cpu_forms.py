"""What the CPU's own forms of attention and convolution are worth (make test-slow)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.unet import UNet, UNetConfig
from tooncrafter_jax.nn.platform import without_cpu_forms
from tooncrafter_jax.weights.rule import unit_noise

ROUNDS = 2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ratio(dtype: str) -> None:
    """The published denoiser's full-width blocks on latents of 24x40, timed in alternation."""
    config = UNetConfig(multipliers=(1,), blocks_per_level=1, attention_levels=(0,))
    network = Network(UNet, config, dtype=dtype, param_dtype=dtype)
    params = {path: jnp.asarray(value) for path, value in network.drawn(0)}
    x = jnp.asarray(unit_noise("x", (1, 16, 24, 40, 8)), dtype)
    context = jnp.asarray(unit_noise("context", (1, 333, 1024)), dtype)

    def compiled(scope: Callable[[], contextlib.AbstractContextManager[None]]) -> Callable[[], jax.Array]:
        def forward(params: dict[str, jax.Array], x: jax.Array, context: jax.Array) -> jax.Array:
            unet = network.bind(params)
            return unet(x, jnp.asarray([500]), unet.context_keys(context, 16), jnp.asarray([10]))

        with scope():
            program = jax.jit(forward).lower(params, x, context).compile()
        return lambda: jax.block_until_ready(program(params, x, context))

    with_forms, plain = compiled(contextlib.nullcontext), compiled(without_cpu_forms)
    ours, theirs = np.asarray(with_forms(), np.float32), np.asarray(plain(), np.float32)
    assert np.abs(ours - theirs).max() < (1e-4 if dtype == "float32" else 0.2) * max(1.0, theirs.std())
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(ROUNDS):
        for name, run in (("with", with_forms), ("without", plain)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    ratio = min(seconds["with"]) / min(seconds["without"])
    print(
        f"{dtype}: {min(seconds['with']):.2f} s with CPU forms, {min(seconds['without']):.2f} s without, ratio "
        f"{ratio:.2f}"
    )
    assert ratio < 1.0
