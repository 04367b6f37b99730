"""One float32 forward of one component of the published size, with weights by the rule; run as a process of its own.

Prints a JSON line: parameters, seconds to make the weights, to compile and to run, peak memory, and statistics of the
output.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.reference import RuleSource
from tooncrafter_jax.models.configuration import tooncrafter_512
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.weights.loading import map_source
from tooncrafter_jax.weights.official import SCHEDULE_BUFFERS
from tooncrafter_jax.weights.rule import unit_noise

KEYS = Path(__file__).parents[1] / "golden" / "keys"
PREFIXES = {
    "clip_text": "cond_stage_model.",
    "clip_image": "embedder.",
    "image_projector": "image_proj_model.",
    "autoencoder": "first_stage_model.encoder first_stage_model.quant_conv",
    "decoder": "first_stage_model.decoder",
    "unet": "model.diffusion_model.",
    "sketch_encoder": "",
}
CONFIG = tooncrafter_512()
FRAMES, HEIGHT, WIDTH = 16, 40, 64  # latents of 320x512 pixels


def key_list(component: str) -> dict[str, tuple[int, ...]]:
    """Official names and shapes of a component."""
    file = "sketch_encoder.tsv" if component == "sketch_encoder" else "tooncrafter_512.tsv"
    shapes = {}
    for line in (KEYS / file).read_text().splitlines():
        name, shape, _ = line.split("\t")
        if name not in SCHEDULE_BUFFERS and name.startswith(tuple(PREFIXES[component].split(" "))):
            shapes[name] = tuple(int(n) for n in shape.split(",") if n)
    return shapes


def case(component: str) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """The forward function of a component's module, and its inputs."""
    context = unit_noise("full.context", (1, 333, 1024))
    latents = unit_noise("full.latents", (1, FRAMES, HEIGHT, WIDTH, 8))
    time_and_fps = [np.asarray([500], np.int32), np.asarray([10], np.int32)]
    pixels = np.clip(unit_noise("full.pixels", (1, 1, 8 * HEIGHT, 8 * WIDTH, 3)), -1, 1)
    if component == "clip_text":
        return lambda m, ids: m(ids), [tokenizer()(["walking man"])]
    if component == "clip_image":
        return lambda m, x: m(x), [unit_noise("full.clip", (1, 224, 224, 3))]
    if component == "image_projector":
        return lambda m, x: m(x), [unit_noise("full.tokens", (1, 257, 1280))]
    if component == "autoencoder":
        return lambda m, x: m(x)[0], [pixels]
    if component == "sketch_encoder":
        hints = np.abs(pixels[..., :1])
        return (
            lambda m, x, t, c, hint: m(x, t, m.context_keys(c), m.hint_features(hint))[-1],
            [latents[:, :1, ..., :4], time_and_fps[0], context, hints],
        )
    if component == "unet":
        return lambda m, x, t, fps, c: m(x, t, m.context_keys(c, FRAMES), fps), [latents, *time_and_fps, context]
    raise ValueError(component)


def main(component: str) -> None:
    """Runs and reports."""
    network: AnyNetwork = CONFIG.networks()[component]
    start = time.perf_counter()
    mapped = map_source(RuleSource(key_list(component)), CONFIG, [component])
    params = {path: jax.device_put(value) for path, value in mapped.iterate(component)}
    made = time.perf_counter()
    forward, inputs = case(component)
    compiled = jax.jit(lambda p, *args: forward(network.bind(p), *args)).lower(params, *inputs).compile()
    ready = time.perf_counter()
    out = np.asarray(jax.block_until_ready(compiled(params, *inputs)))
    done = time.perf_counter()
    memory = compiled.memory_analysis()
    print(
        json.dumps(
            {
                "component": component,
                "parameters": network.parameter_count,
                "weights_s": round(made - start, 1),
                "compile_s": round(ready - made, 1),
                "run_s": round(done - ready, 1),
                "temp_gib": None if memory is None else round(memory.temp_size_in_bytes / 2**30, 2),
                "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                "shape": out.shape,
                "finite": bool(jnp.isfinite(out).all()),
                "std": float(out.std()),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
