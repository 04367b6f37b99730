"""How far runs of few steps end from a run of 1,000: solvers, spacings and numbers of steps on one model.

  python scripts/measure_solvers.py [--model=DIR | --random-weights=tiny] [--frames=4]

Printed is the root mean square of the difference of the final latents from those of 1,000 steps of DDIM without
noise, over the latter's standard deviation; all go to the exact end. A model of one step, as the bundled one, has no
use for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax import Pair, ToonCrafter
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, Spacing
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.diffusion.solvers.solver import number_of_rows
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.models.tooncrafter import BoundModel
from tooncrafter_jax.sampling.denoise import Guidance, guided
from tooncrafter_jax.sampling.request import SamplingOptions, prepare
from tooncrafter_jax.sampling.sampler import branch_contexts

EXAMPLES = Path(__file__).parents[1] / "examples"
SPACINGS: tuple[Spacing, ...] = ("uniform_trailing", "karras")
REFERENCE = SolverOptions(steps=1000, eta=0.0, exact_last_step=True)


class Problem:
    """A few clips, and a model that predicts them.

    Args:
      toon: the model, on one device.
      pairs: one clip each.
      options: frames, size and guidance.
    """

    def __init__(self, toon: ToonCrafter, pairs: Sequence[Pair], options: SamplingOptions) -> None:
        self.schedule = NoiseSchedule(toon.config.schedule)
        sampler, frames, params = toon.sampler(1, options.frames), options.frames, toon.params
        prepared = [prepare(pair, options, toon.config) for pair in pairs]
        ends, seeds = jnp.stack([one.ends for one in prepared]), jnp.arange(len(pairs), dtype=jnp.uint32)
        latents = sampler.end_latents(sampler.encode(params, ends)[0], seeds, last=frames - 1)
        text = sampler.text(params, jnp.asarray(tokenizer()([pair.prompt for pair in pairs])))
        image = sampler.image_tokens(params, sampler.clip_pixels(ends[:, 0]))
        branches = 2 if options.is_guided else 1
        away = sampler.unconditional_tokens(params) if branches == 2 else None
        contexts = branch_contexts(text, image, away, branches)
        fps = jnp.asarray([pair.fps for pair in pairs], jnp.int32)
        conditions = sampler.conditions(params, latents, frames, contexts, fps)
        self.noise = sampler.initial_noise(seeds, frames=frames, frame_shape=latents.shape[2:])
        unet = toon.config.networks("float32")["unet"]

        @jax.jit
        def v(params: Any, x: jax.Array, timestep: jax.Array, conditions: Any, guidance: Guidance) -> jax.Array:
            model = BoundModel(toon.config, lambda _: unet.bind(params))

            def predict(noisy: jax.Array, times: jax.Array, given: Any) -> jax.Array:
                return model.predict_v(noisy, times, given).astype(jnp.float32)

            return guided(predict, conditions, guidance, branches=branches)(x, timestep)

        guidance = Guidance(options.guidance_scale, options.guidance_rescale)
        self._v: Any = lambda x, time: v(params["unet"], x, time, conditions, guidance)

    def run(self, solver: str, options: SolverOptions) -> tuple[np.ndarray, int]:
        """Latents that a run without noise ends with, and how many calls of the network it took."""
        chosen = SOLVERS[solver]
        rows = chosen.rows(self.schedule, options)
        carry = chosen.init(self.noise)
        for index in range(number_of_rows(rows)):
            row = jax.tree.map(lambda column, index=index: column[index], rows)
            v = self._v(chosen.latents(carry), jnp.int32(row.timestep))
            carry, _ = chosen.step(carry, v, row, lambda: jnp.zeros_like(self.noise))
        return np.asarray(chosen.latents(carry)), number_of_rows(rows)


def add_problem(parser: argparse.ArgumentParser) -> None:
    """The arguments that `problem_of` reads."""
    parser.add_argument("--model", default="", help="checkpoint directory, or the name of a published model")
    parser.add_argument("--random-weights", default="tiny", help="without --model: architecture (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=2, help="how many of the examples (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="of a clip (default: %(default)s)")
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1 is off (default: %(default)s)")


def problem_of(arguments: argparse.Namespace) -> Problem:
    """Examples as clips of the chosen model."""
    devices = jax.devices()[:1]
    toon = (
        ToonCrafter.load(arguments.model, dtype="float32", devices=devices)
        if arguments.model
        else ToonCrafter.random(arguments.random_weights, dtype="float32", devices=devices)
    )
    folders = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())[: arguments.clips]
    pictures = [sorted(path for path in folder.iterdir() if path.suffix in (".png", ".webp")) for folder in folders]
    pairs = [Pair(found[0], found[-1], folder.name) for folder, found in zip(folders, pictures, strict=True)]
    return Problem(toon, pairs, SamplingOptions(frames=arguments.frames, guidance_scale=arguments.guidance_scale))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_problem(parser)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50], metavar="N")
    arguments = parser.parse_args()
    problem = problem_of(arguments)
    reference, _ = problem.run("ddim", REFERENCE)
    print("| solver and spacing | " + " | ".join(f"{steps} steps" for steps in arguments.steps) + " |")
    print("|---|" + "---|" * len(arguments.steps))
    for spacing in SPACINGS:
        for solver in ("euler", "dpmpp_2m", "unipc", "heun"):
            cells = []
            for steps in arguments.steps:
                found, calls = problem.run(solver, SolverOptions(spacing, steps, 0.0, exact_last_step=True))
                error = np.sqrt(np.mean((found - reference) ** 2)) / reference.std()
                cells.append(f"{error:.4f}" + (f" ({calls} calls)" if calls != steps else ""))
            print(f"| `{solver}`, `{spacing}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
