"""Finds the diffusion times that a model should visit in few steps, for `--timesteps`.

  python scripts/find_timesteps.py --model=DIR --steps=5 [--solver=unipc] [--clips=4] [--guidance-scale=7.5]

From the better one of both spacings on, one time after another is moved for as long as the final latents of a few
clips come closer to those of 200 steps (`diffusion/spacing.py`). That takes some hundred runs of so many steps:
choose other clips than those that are measured later, and an accelerator. Printed are the times, and the distances of
this and the usual spacings.
"""

from __future__ import annotations

import argparse

import numpy as np
from measure_solvers import SPACINGS, add_problem, problem_of

from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.diffusion.spacing import refined_timesteps, run_timesteps

FINE = SolverOptions("karras", 200, 0.0, exact_last_step=True)


def main() -> None:
    """Prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_problem(parser)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--solver", default="unipc", choices=list(SOLVERS))
    parser.add_argument("--least", type=int, default=4, metavar="TIMES", help="last stride (default: %(default)s)")
    arguments = parser.parse_args()
    problem, runs = problem_of(arguments), 0
    fine, _ = problem.run("unipc", FINE)

    def distance(times: list[int]) -> float:
        nonlocal runs
        runs += 1
        options = SolverOptions(eta=0.0, exact_last_step=True, timesteps=",".join(map(str, times)))
        found, _ = problem.run(arguments.solver, options)
        return float(np.sqrt(np.mean((found - fine) ** 2)) / fine.std())

    usual = {name: run_timesteps(problem.schedule, name, arguments.steps)[::-1].tolist() for name in SPACINGS}
    costs = {name: distance(times) for name, times in usual.items()}
    begun = usual[min(costs, key=lambda name: costs[name])]
    times, lowest = refined_timesteps(begun, distance, least=arguments.least)
    print(f"--timesteps={','.join(map(str, times))}   {lowest:.4f}, found by {runs} runs")
    for name, cost in costs.items():
        print(f"--spacing={name} --steps={arguments.steps}   {cost:.4f}")


if __name__ == "__main__":
    main()
