"""How long a first start takes, and a second one, which finds the programs of the first: a table of seconds.

  python scripts/measure_start.py [--dtype=float32]

`sample` draws a pair of the examples with the bundled model. The sampling loop of the published denoiser, at 320x512
without guidance, is called in a process of its own with zeros for all arguments: first for no step, until it could take
one, then for one. For each, a directory of programs begins empty, and the second process finds it full. In float32 the
weights take 5.4 GiB of memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from tooncrafter_jax.cli.config_options import read_config
from tooncrafter_jax.diffusion.solvers import solver_named
from tooncrafter_jax.planning.sampling_plan import sampling_arguments
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.sampling.request import make_options
from tooncrafter_jax.sampling.sampler import Sampler
from tooncrafter_jax.training.start import architecture

ROOT = Path(__file__).parents[1]
CONFIG = "configs/rectify_512.py"
PAIR = ("--first=examples/penguin/first.png", "--last=examples/penguin/last.png")


def run(*command: str) -> tuple[float, str]:
    """Seconds that a command took, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, done.stdout


def call_loop(programs: str, dtype: str) -> None:
    """Prints the seconds until the loop could take a step, and those until it has taken one."""
    enable_compilation_cache(programs)
    config = read_config(CONFIG, [f"--config.dtype={dtype}"])
    model = architecture(config)
    options = make_options({"steps": 1, "guidance_scale": 1, "height": config.data.height, "width": config.data.width})
    sampler = Sampler(model, model.networks(config.dtype, config.dtype, config.attention), None)
    shapes = sampling_arguments(config, sampler, options, 1, None)
    params, carry, chunk, *others = jax.block_until_ready(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    )
    start = time.perf_counter()
    for is_active in (False, True):
        steps = chunk._replace(active=jnp.full(chunk.active.shape, is_active))
        settings = {"solver": solver_named(options.solver), "branches": 1, "in_sequence": False, "reused_blocks": None}
        carry, _ = jax.block_until_ready(sampler.denoise(params, carry, steps, *others, **settings))
        print(time.perf_counter() - start)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", help="of the published denoiser (default: %(default)s)")
    parser.add_argument("--programs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.programs is not None:
        call_loop(arguments.programs, arguments.dtype)
        return
    print("| | first start (s) | second (s) |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        sample = ("-m", "tooncrafter_jax", "sample", *PAIR, "--quiet", f"--compilation-cache={folder}/small")
        first, second = (run(*sample, f"--out={folder}/{n}.mp4")[0] for n in range(2))
        print(f"| `tooncrafter sample`, the bundled model | {first:.1f} | {second:.1f} |", flush=True)
        own = (os.fspath(Path(__file__).resolve()), f"--programs={folder}/full", f"--dtype={arguments.dtype}")
        first, second = ([float(line) for line in run(*own)[1].splitlines()[-2:]] for _ in range(2))
        for what, *seconds in zip(("ready", "after one step"), first, second, strict=True):
            print(f"| the sampling loop of the published denoiser, {what} | {seconds[0]:.1f} | {seconds[1]:.1f} |")


if __name__ == "__main__":
    main()
