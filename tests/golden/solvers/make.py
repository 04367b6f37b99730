"""Runs the schedulers of diffusers 0.42.1 with the network of `network.py`, and writes what they end with.

Writes diffusers.json beside this file. Needs diffusers and torch, which the tests do not:
python -m tests.golden.solvers.make
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers  # pyright: ignore[reportMissingImports]
import numpy as np
import torch

from tests.golden.solvers.network import noise, v

PUBLISHED: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
KEPT = 6
"""Values of each result: the network treats all alike."""
MULTISTEP: dict[str, Any] = {"solver_order": 2, "lower_order_final": True}


def cases() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Our name, their class, its settings, and what one step of it is told."""
    for zero_snr in (False, True):
        for exact in (False, True):
            snr = {"rescale_betas_zero_snr": zero_snr}
            ends = {"final_sigmas_type": "zero" if exact else "sigma_min"}
            for eta in (0.0, 1.0):
                settings = {**snr, "set_alpha_to_one": exact, "clip_sample": False}
                yield "ddim", "DDIMScheduler", settings, {"eta": eta}
            for name, algorithm in (("dpmpp_2m", "dpmsolver++"), ("dpmpp_2m_sde", "sde-dpmsolver++")):
                settings = {**snr, **ends, **MULTISTEP, "algorithm_type": algorithm, "euler_at_final": True}
                yield name, "DPMSolverMultistepScheduler", settings, {}
            yield "unipc", "UniPCMultistepScheduler", {**snr, **ends, **MULTISTEP, "solver_type": "bh2"}, {}
        yield "euler", "EulerDiscreteScheduler", snr, {}
    yield "heun", "HeunDiscreteScheduler", {}, {}


def result(kind: str, settings: dict[str, Any], told: dict[str, Any], steps: int) -> np.ndarray:
    """What a run ends with."""
    scheduler = getattr(diffusers, kind)(**PUBLISHED, **settings)
    scheduler.set_timesteps(steps)
    start, added = noise()
    sample = torch.tensor(start)
    if "Euler" in kind or "Heun" in kind:  # they hold latents over their signal; init_noise_sigma is rounded by design
        sample *= (scheduler.sigmas.max() ** 2 + 1) ** 0.5
    takes_noise = "variance_noise" in inspect.signature(scheduler.step).parameters
    for index, time in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(sample, time).double().numpy()
        predicted = torch.tensor(v(seen, float(time)), dtype=torch.float32)
        extra = {"variance_noise": torch.tensor(added[index])} if takes_noise else {}
        sample = scheduler.step(predicted, time, sample, **told, **extra).prev_sample
    return sample.numpy()


def main() -> None:
    """Writes the file."""
    found = []
    for name, kind, settings, told in cases():
        for steps in (1, 2, 5, 20):
            values = [float(f"{value:.7g}") for value in result(kind, settings, told, steps).reshape(-1)[:KEPT]]
            found.append({"solver": name, "by": kind, "settings": settings | told, "steps": steps, "values": values})
    lines = ",\n".join(json.dumps(one) for one in found)
    Path(__file__).with_name("diffusers.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
