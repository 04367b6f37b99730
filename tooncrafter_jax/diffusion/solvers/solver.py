"""What a solver is: a way from noise to clean latents, one prediction of the network at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import jax
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule, Spacing
from tooncrafter_jax.options import Option, with_attributes
from tooncrafter_jax.typing import Latents

Carry = Any
"""What a solver remembers from one prediction to the next: a tree of arrays of its own, with fixed shapes."""
Rows = Any
"""A named tuple of columns, one entry a prediction in the order in which they are made; `timestep` (int32) is one of
them.
"""
Row = Any
"""One entry of each column, scalars."""


@dataclass(frozen=True)
class SolverOptions:
    """What a user chooses of a run; declared here once, for whatever samples (`tooncrafter_jax.options`)."""

    spacing: Annotated[
        Spacing,
        Option(
            "of the steps: uniform_trailing; uniform, which never visits the last time and suits no model of zero "
            "terminal SNR; karras, which lie close where little noise is left",
            published="--timestep_spacing",
        ),
    ] = "uniform_trailing"
    steps: Annotated[
        int,
        Option(
            "sampling steps: more are slower and cleaner; uniform spacing may round them up",
            least=1,
            most=1000,
            published="--ddim_steps",
            called="the number of sampling steps",
        ),
    ] = 50
    eta: Annotated[
        float,
        Option(
            "noise added while sampling, by ddim and dpmpp_2m_sde alone: 0 is deterministic, 1 as noisy as the "
            "diffusion itself",
            least=0,
            most=1,
            published="--ddim_eta",
            called="eta",
        ),
    ] = 1.0
    # The published sampler ends at time 0, i.e. with noise of standard deviation 0.029 and the latent scaled by 0.985
    # for 50 steps. differs from the published code: only when True.
    exact_last_step: Annotated[
        bool, Option("remove the last bit of noise, which the published sampler leaves, and lcm never")
    ] = False
    strength: Annotated[
        float,
        Option(
            "with a draft, how much of it is drawn anew: this share of the steps is run, from the draft with as much "
            "noise as they begin with",
            least=0.001,
            most=1,
        ),
    ] = 1.0
    timesteps: Annotated[
        str | None,
        Option(
            "the diffusion times that are visited, from noise on, e.g. 999,600,300, instead of --spacing and --steps; "
            "those that suit a model best are found by scripts/find_timesteps.py",
            unset="by spacing and steps",
            metavar="TIMES",
        ),
    ] = None


SolverOptions.__doc__ = with_attributes(SolverOptions.__doc__, SolverOptions)


@runtime_checkable
class Solver(Protocol):
    """A solver has no state of its own: what differs from run to run lies in its rows, what changes within one in its
    carry.

    So that one compiled program serves runs of any length, `step` sees numbers of a row as traced scalars. A solver
    that looks back keeps its history in the carry; one that needs two predictions a step has two rows for it, and notes
    in them which is which.
    """

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> Rows:
        """The numbers of a run, computed on the host; the first `timestep` is that of the noise which it starts from.

        Raises:
          UserError: an option is out of range.
        """
        ...

    def init(self, x: Latents) -> Carry:
        """The carry before the first prediction, from noise (B, T, h, w, C).

        Its buffers are given up to the compiled loop: no two of its arrays may be the same.
        """
        ...

    def latents(self, carry: Carry) -> Latents:
        """The noisy latents that the next prediction is made for; after the last row, the result."""
        ...

    def step(self, carry: Carry, v: Latents, row: Row, noise: Callable[[], Latents]) -> tuple[Carry, Latents]:
        """One prediction taken into account.

        Args:
          carry: as `init` or the step before left it.
          v: what the guided network predicts for `latents(carry)` at `row.timestep`, float32.
          row: one row.
          noise: draws standard normal noise of the shape of `v`, the same whenever it is called for this row; a solver
            that never calls it costs no random numbers.

        Returns:
          The carry, and the clean latents that this prediction speaks of, with the dynamic rescale undone as far as the
          row's next time asks (for previews).
        """
        ...


def number_of_rows(rows: Rows) -> int:
    """How many predictions a run makes."""
    return len(np.asarray(jax.tree.leaves(rows)[0]))
