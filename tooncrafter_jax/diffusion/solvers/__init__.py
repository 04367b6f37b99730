"""Solvers of the sampling equation, by name; a new one is a file here, a line below and a test."""

from __future__ import annotations

from tooncrafter_jax.diffusion.solvers.ddim import Ddim
from tooncrafter_jax.diffusion.solvers.dpmpp_2m import Dpmpp2m
from tooncrafter_jax.diffusion.solvers.euler import Euler
from tooncrafter_jax.diffusion.solvers.heun import Heun
from tooncrafter_jax.diffusion.solvers.lcm import Lcm
from tooncrafter_jax.diffusion.solvers.solver import Carry, Solver, SolverOptions
from tooncrafter_jax.diffusion.solvers.unipc import Unipc
from tooncrafter_jax.errors import UserError

SOLVERS: dict[str, Solver] = {
    "ddim": Ddim(),
    "dpmpp_2m": Dpmpp2m(),
    "dpmpp_2m_sde": Dpmpp2m(is_stochastic=True),
    "unipc": Unipc(),
    "heun": Heun(),
    "euler": Euler(),
    "lcm": Lcm(),
}
DEFAULT_SOLVER = "ddim"

__all__ = ["DEFAULT_SOLVER", "SOLVERS", "Carry", "Solver", "SolverOptions", "solver_named"]


def solver_named(name: str) -> Solver:
    """The solver of this name.

    Raises:
      UserError: there is none.
    """
    if name not in SOLVERS:
        raise UserError(f"unknown solver '{name}': choose one of {', '.join(SOLVERS)}")
    return SOLVERS[name]
