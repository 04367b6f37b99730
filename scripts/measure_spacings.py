"""Solvers and spacings on data whose best network is known: the tables of docs/solvers.md, "Spacing".

  python scripts/measure_spacings.py [--find=4,5,8]

The data are four mixtures of four normal distributions each, every entry by itself, with the published schedule and
its dynamic rescale. Printed is the root mean square of the difference from the exact solution at the end, which a
fine run of the fourth order gives, over 2,000 starts of each mixture. With --find, times are found on the first 300
of them, and measured on all.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.loop import Chunk, chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, Spacing
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.diffusion.spacing import refined_timesteps, run_timesteps

SCHEDULE = NoiseSchedule()
STARTS, FOR_SEARCH, FINE = 2000, 300, 3000
STEPS = (4, 5, 8, 10, 20, 50)
SPACINGS: tuple[Spacing, ...] = ("uniform_trailing", "karras")
WITHOUT_NOISE = ("euler", "dpmpp_2m", "unipc", "heun")
ROWS_AT_A_TIME = 10


class Mixture(NamedTuple):
    """Normal distributions (4,): means, deviations and shares."""

    means: Any
    deviations: Any
    shares: Any

    def clean(self, x: Any, signal: Any, noise: Any, numpy: Any = np) -> Any:
        """The posterior mean of z, of x = signal * z + noise * e; x has any shape."""
        variance = (signal * self.deviations) ** 2 + noise**2
        away = x[..., None] - signal * self.means
        logs = numpy.log(self.shares) - numpy.log(variance) / 2 - away**2 / variance / 2
        weights = numpy.exp(logs - logs.max(-1, keepdims=True))
        means = self.means + signal * self.deviations**2 / variance * away
        return (weights * means).sum(-1) / weights.sum(-1)


def problem(seed: int) -> tuple[Mixture, np.ndarray, np.ndarray]:
    """A mixture, starts, and where they lead."""
    draw = np.random.default_rng(seed)
    mixture = Mixture(draw.normal(size=4) * 0.8, draw.uniform(0.05, 0.4, 4), draw.dirichlet([2.0] * 4))
    starts = draw.normal(size=STARTS)
    angles, x = np.linspace(np.pi / 2, 1e-3, FINE + 1), starts

    def slope(x: np.ndarray, angle: float) -> np.ndarray:
        signal, noise = np.cos(angle), np.sin(angle)
        clean = mixture.clean(x, signal, noise)
        return signal * (x - signal * clean) / noise - noise * clean

    for angle, following in itertools.pairwise(angles):
        width, middle = following - angle, (angle + following) / 2
        first = slope(x, angle)
        second = slope(x + width / 2 * first, middle)
        third = slope(x + width / 2 * second, middle)
        x = x + width / 6 * (first + 2 * second + 2 * third + slope(x + width * third, following))
    return mixture, starts, x


@functools.cache
def compiled(name: str) -> Any:
    """A chunk of a run whose network has learnt a mixture with the dynamic rescale."""
    tables = SCHEDULE.sqrt_alphas_cumprod, SCHEDULE.sqrt_one_minus_alphas_cumprod, SCHEDULE.dynamic_scale
    alphas, sigmas, scales = (jnp.asarray(table) for table in tables)

    def part(carry: Any, chunk: Chunk, mixture: Mixture) -> Any:
        def denoise(x: jax.Array, time: jax.Array) -> jax.Array:
            alpha, sigma, scale = alphas[time], sigmas[time], scales[time]
            scaled = scale * mixture.clean(x, alpha * scale, sigma, jnp)
            return alpha * (x - alpha * scaled) / sigma - sigma * scaled

        return run_chunk(SOLVERS[name], denoise, carry, chunk, lambda _: jnp.zeros(()))[0]

    return jax.jit(part)


def error(name: str, options: SolverOptions, problems: list[tuple[Mixture, np.ndarray, np.ndarray]]) -> float:
    """Root mean square over all starts of all mixtures."""
    solver, squares = SOLVERS[name], []
    for mixture, starts, ends in problems:
        carry = solver.init(jnp.asarray(starts, jnp.float32).reshape(-1, 1, 1, 1, 1))
        for chunk in chunks(solver.rows(SCHEDULE, options), ROWS_AT_A_TIME):
            carry = compiled(name)(carry, chunk, jax.tree.map(jnp.float32, mixture))
        squares.append(np.mean((np.asarray(solver.latents(carry)).reshape(-1) - ends) ** 2))
    return float(np.sqrt(np.mean(squares)))


def find(name: str, steps: int, problems: list[tuple[Mixture, np.ndarray, np.ndarray]]) -> list[int]:
    """Times that were found on some of the starts."""
    few = [(mixture, starts[:FOR_SEARCH], ends[:FOR_SEARCH]) for mixture, starts, ends in problems]

    def cost(times: list[int]) -> float:
        return error(name, SolverOptions(exact_last_step=True, timesteps=",".join(map(str, times))), few)

    return refined_timesteps(run_timesteps(SCHEDULE, "karras", steps)[::-1].tolist(), cost)[0]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find", default="", metavar="STEPS", help="numbers of steps to find times for, e.g. 4,5,8")
    wanted = [int(steps) for steps in parser.parse_args().find.split(",") if steps]
    problems = [problem(seed) for seed in range(4)]
    print("| solver and spacing | " + " | ".join(f"{steps} steps" for steps in STEPS) + " |")
    print("|---|" + "---|" * len(STEPS))
    for spacing in SPACINGS:
        for name in WITHOUT_NOISE:
            found = [error(name, SolverOptions(spacing, steps, exact_last_step=True), problems) for steps in STEPS]
            print(f"| `{name}`, `{spacing}` | " + " | ".join(f"{one:.3f}" for one in found) + " |", flush=True)
    for steps in wanted:
        for name in ("dpmpp_2m", "unipc"):
            times = find(name, steps, problems)
            options = SolverOptions(exact_last_step=True, timesteps=",".join(map(str, times)))
            print(f"{name}, {steps} steps: {options.timesteps}   {error(name, options, problems):.3f}", flush=True)


if __name__ == "__main__":
    main()
