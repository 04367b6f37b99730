"""Whole runs against those of diffusers (`tests/golden/solvers`): plain and zero terminal SNR, both ends, four lengths.

Both define the same where there is no dynamic rescale. For all but DDIM, theirs put 2**-24 in the place of the last
share of signal, which is 0; the comparison does the same.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.solvers.network import MAX_STEPS, noise, v
from tests.reference import GOLDEN
from tooncrafter_jax.diffusion.loop import Chunk, chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions

CASES: list[dict[str, Any]] = json.loads((GOLDEN / "solvers" / "diffusers.json").read_text(encoding="utf-8"))
KEPT = len(CASES[0]["values"])
LAST_ALPHA = 2.0**-24
START, ADDED = noise()
OF_OUR_OWN = ("lcm",)
"""Theirs blends noisy latents into the clean ones, which predictions of v do not need; see `test_lcm.py`."""
ROUGH = {"euler": 3e-4, "ddim": 3e-5}
"""From pure noise: theirs hold latents times 4096 in float32; and the root of a radicand that is 0 but for rounding."""


def schedule_of(settings: dict[str, Any], last_alpha: float = 0.0) -> NoiseSchedule:
    is_zero = settings.get("rescale_betas_zero_snr", False)
    schedule = NoiseSchedule(ScheduleConfig(zero_terminal_snr=is_zero, dynamic_rescale=False))
    if is_zero:
        schedule.alphas_cumprod_f64 = np.append(schedule.alphas_cumprod_f64[:-1], last_alpha)
    return schedule


def result(name: str, schedule: NoiseSchedule, options: SolverOptions) -> np.ndarray:
    solver = SOLVERS[name]
    carry = solver.init(jnp.asarray(START))
    for chunk in chunks(solver.rows(schedule, options), 2 * MAX_STEPS):
        carry = _compiled(name)(carry, chunk)
    return np.asarray(solver.latents(carry)).reshape(-1)[:KEPT]


@functools.cache
def _compiled(name: str) -> Any:
    def part(carry: Any, chunk: Chunk) -> Any:
        added = jnp.asarray(ADDED)
        return run_chunk(SOLVERS[name], lambda x, time: v(x, time, jnp), carry, chunk, lambda index: added[index])[0]

    return jax.jit(part)


def options_of(case: dict[str, Any]) -> SolverOptions:
    settings = case["settings"]
    is_exact = settings.get("set_alpha_to_one", settings.get("final_sigmas_type", "zero") == "zero")
    return SolverOptions(steps=case["steps"], eta=settings.get("eta", 1.0), exact_last_step=bool(is_exact))


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in OF_OUR_OWN])
def test_runs_end_where_theirs_do(name: str) -> None:
    """To 1e-5 of values of about unit size; theirs compute in float32 throughout."""
    cases = [case for case in CASES if case["solver"] == name]
    assert len(cases) >= 4
    for case in cases:
        last = 0.0 if name == "ddim" else LAST_ALPHA
        is_zero = case["settings"].get("rescale_betas_zero_snr", False)
        ours = result(name, schedule_of(case["settings"], last), options_of(case))
        assert np.abs(ours).max() > 0.3
        np.testing.assert_allclose(
            ours,
            case["values"],
            atol=ROUGH.get(name, 1e-5) if is_zero else 1e-5,
            err_msg=f"{case['settings']}, {case['steps']} steps",
        )


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc"])
def test_the_exact_last_time_is_near_theirs(name: str) -> None:
    """What 2**-24 instead of 0 changes in five steps, most of it by how far the second one extrapolates."""
    case = next(
        case
        for case in CASES
        if case["solver"] == name and case["settings"]["rescale_betas_zero_snr"] and case["steps"] == 5
    )
    change = np.abs(result(name, schedule_of(case["settings"]), options_of(case)) - np.array(case["values"]))
    assert 1e-3 < change.max() < 5e-2
