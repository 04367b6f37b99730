"""Where bfloat16 costs the denoiser its precision, and what weights in 8 bits cost: errors of v in docs/precision.md.

  python scripts/measure_precision.py

The bundled model predicts v for a pair of pictures at four diffusion times, with and without guidance: in float32, in
bfloat16, in bfloat16 with some layers in float32, and in float32 with large weights in 8 bits. Printed is the root mean
square of the difference from float32, over that of v. Products have bfloat16 operands or, where a layer is in float32,
exact ones; a TPU or GPU rounds a little differently.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.diffusion.guidance import guide
from tooncrafter_jax.diffusion.objective import noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.models.tooncrafter import condition_latents
from tooncrafter_jax.nn.platform import without_cpu_forms
from tooncrafter_jax.nn.quantised import QuantisedKernel
from tooncrafter_jax.runtime.quick_compilation import quick_compilation
from tooncrafter_jax.sampling.model_loading import stored_dtype
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, prepare
from tooncrafter_jax.typing import Params
from tooncrafter_jax.weights.eight_bits import WEIGHT_DTYPES, in_eight_bits

TIMES = (999, 700, 400, 100)
SCALES = (1.0, 7.5)
EXAMPLE = Path(__file__).parents[1] / "examples" / "penguin"

NOTHING = r"(?!)"
LAST = r"norm_out|conv_out"
EMBEDDINGS = r"(time|fps)_embedding\..*|.*\.embedding"
ADDED = (
    r"conv_in|.*(spatial_res\.(conv_out|skip)|proj_out|attention\w*\.out|feed_forward\.out"
    r"|stages\.3\.conv|(down|up)sample)"
)
ATTENTION = r".*attention\w*\.(image_)?(query|key|value)"
NORMS = r".*\.norm\w*"
FIRST_LEVEL = r"(down|up)\.0\..*"

VARIANTS: dict[str, str] = {
    "all in bfloat16": NOTHING,
    "the last convolution's output in float32": "conv_out",
    "last norm, SiLU and convolution in float32": LAST,
    "... and the embeddings of time and frame rate": f"{LAST}|{EMBEDDINGS}",
    "... and queries, keys, values and their softmax": f"{LAST}|{ATTENTION}",
    "... and everything that is added to the residual stream": f"{LAST}|{ADDED}",
    "... and that, and all norms' outputs": f"{LAST}|{ADDED}|{NORMS}",
    "... and all layers of the highest resolution": f"{LAST}|conv_in|stem_temporal_transformer\\..*|{FIRST_LEVEL}",
    "everything in float32, weights rounded to bfloat16": r".*",
}
"""What is measured -> the paths of the layers that compute in float32, and give it."""
IN_EIGHT_BITS = {f"everything in float32, large weights in {dtype}": dtype for dtype in WEIGHT_DTYPES}
"""What is measured behind those -> what large weights are held in."""


def problem(toon: ToonCrafter) -> dict[str, Any]:
    """A pair's input to the denoiser at all times: rows are times, the conditional ones first."""
    pictures = sorted(path for path in EXAMPLE.iterdir() if path.suffix in (".png", ".webp", ".jpg"))
    options = SamplingOptions(frames=16)
    ends = jnp.asarray(prepare(Pair(pictures[0], pictures[-1], "a penguin"), options, toon.config).ends)[None]
    frames, rows = options.frames, len(TIMES)
    sampler, seeds = toon.sampler(1, frames), jnp.zeros(1, jnp.uint32)
    of_ends = sampler.end_latents(sampler.encode(toon.params, ends)[0], seeds, last=frames - 1)
    share = jnp.linspace(0, 1, frames)[None, :, None, None, None]
    latents = jnp.repeat((1 - share) * of_ends[:, :1] + share * of_ends[:, 1:], rows, 0)
    noise = sampler.initial_noise(seeds, frames=frames, frame_shape=of_ends.shape[2:])
    times = jnp.asarray(TIMES)
    noisy = noisy_target(NoiseSchedule(toon.config.schedule), latents, jnp.repeat(noise, rows, 0), times).noisy
    x = jnp.concatenate([noisy, jnp.repeat(condition_latents(of_ends, frames), rows, 0)], -1)

    def context(prompt: str, first: jax.Array) -> jax.Array:
        text = sampler.text(toon.params, jnp.asarray(tokenizer()([prompt])))
        return jnp.concatenate([text, sampler.image_tokens(toon.params, sampler.clip_pixels(first))], 1)

    contexts = [context("a penguin", ends[:, 0]), context("", jnp.zeros_like(ends[:, 0]))]
    return {
        "x": jnp.concatenate([x, x]),
        "timesteps": jnp.concatenate([times, times]),
        "context": jnp.concatenate([jnp.repeat(one, rows, 0) for one in contexts]),
    }


def rounded(params: Params, weight_dtype: str) -> Params:
    """The denoiser's weights with the values that the large ones have in 8 bits."""
    held = in_eight_bits({"unet": params}, jnp.dtype(weight_dtype))["unet"]
    return {
        path: value.dequantised(jnp.float32) if isinstance(value, QuantisedKernel) else value
        for path, value in held.items()
    }


def predictions(
    toon: ToonCrafter, dtype: str, in_float32: str, inputs: dict[str, Any], weight_dtype: str | None = None
) -> np.ndarray:
    """V of both branches, float32, with the layers whose path is like `in_float32` computed so."""
    network = toon.config.networks(dtype)["unet"]
    given = toon.params["unet"] if weight_dtype is None else rounded(toon.params["unet"], weight_dtype)
    params = {path: value.astype(stored_dtype(value.shape, network.dtype)) for path, value in given.items()}

    @jax.jit
    def run(params: Any, x: Any, timesteps: Any, context: Any) -> jax.Array:
        unet = network.bind(params)
        for path, layer in nnx.iter_modules(unet):
            if hasattr(layer, "dtype") and path:
                chosen = re.fullmatch(in_float32, ".".join(map(str, path))) is not None
                cast(Any, layer).dtype = jnp.float32 if chosen else network.dtype
        return unet(x, timesteps, unet.context_keys(context, x.shape[1])).astype(jnp.float32)

    with quick_compilation(), without_cpu_forms(), jax.default_matmul_precision("highest"):
        return np.asarray(run(params, **inputs))


def error(found: np.ndarray, true: np.ndarray, scale: float) -> float:
    """The relative error of guided predictions, in the root mean square over times, frames and cells."""
    (given, empty), (true_given, true_empty) = jnp.split(jnp.asarray(found), 2), jnp.split(jnp.asarray(true), 2)
    ours, exact = np.asarray(guide(given, empty, scale)), np.asarray(guide(true_given, true_empty, scale))
    return float(np.sqrt(np.mean((ours - exact) ** 2) / np.mean(exact**2)))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="small", help="checkpoint directory, or the bundled model (default: %(default)s)"
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", metavar="N", help="some rows of the table, from 0 (default: all)"
    )
    arguments = parser.parse_args()
    toon = ToonCrafter.load(arguments.model, dtype="float32", devices=jax.devices()[:1])
    inputs = problem(toon)
    true = predictions(toon, "float32", r".*", inputs)
    print("| computed | " + " | ".join(f"guidance {scale:g}" for scale in SCALES) + " |")
    print("|---|" + "---|" * len(SCALES))
    rows: list[tuple[str, str, str, str | None]] = []
    rows += [(name, "bfloat16", in_float32, None) for name, in_float32 in VARIANTS.items()]
    rows += [(name, "float32", r".*", held_in) for name, held_in in IN_EIGHT_BITS.items()]
    for number, (name, dtype, in_float32, held_in) in enumerate(rows):
        if arguments.rows and number not in arguments.rows:
            continue
        found = predictions(toon, dtype, in_float32, inputs, held_in)
        print(f"| {name} | " + " | ".join(f"{error(found, true, s):.2%}" for s in SCALES) + " |", flush=True)


if __name__ == "__main__":
    main()
