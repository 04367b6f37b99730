"""The noise schedule with zero terminal SNR, the dynamic rescale, and the times that a run visits (spec section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostParams

Spacing = Literal["uniform_trailing", "uniform", "karras"]


@dataclass(frozen=True)
class ScheduleConfig:
    """Constants of the diffusion process; the defaults are the published model's (spec sections 6.1 and 6.2).

    Attributes:
      timesteps: number of diffusion times.
      linear_start, linear_end: first and last beta; their square roots are spaced linearly.
      zero_terminal_snr: whether the schedule is rescaled so that the last time is pure noise.
      dynamic_rescale: whether clean latents are scaled down with the time.
      base_scale, turning_step: the dynamic scale falls linearly from 1 to `base_scale` over `turning_step` times, then
        stays.
      scale_factor: what latents are multiplied by after encoding.
    """

    timesteps: int = 1000
    linear_start: float = 0.00085
    linear_end: float = 0.012
    zero_terminal_snr: bool = True
    dynamic_rescale: bool = True
    base_scale: float = 0.7
    turning_step: int = 400
    scale_factor: float = 0.18215


class NoiseSchedule:
    """The tables of a `ScheduleConfig`, computed in float64; those that a network meets are rounded to float32.

    Attributes:
      config: the constants.
      betas_before_rescale, betas, alphas_cumprod_f64: (timesteps,) float64.
    """

    def __init__(self, config: ScheduleConfig = ScheduleConfig()) -> None:
        self.config = config
        roots = np.linspace(config.linear_start**0.5, config.linear_end**0.5, config.timesteps, dtype=np.float64)
        self.betas_before_rescale = roots**2
        self.betas = self.betas_before_rescale
        if config.zero_terminal_snr:
            self.betas = rescale_to_zero_terminal_snr(self.betas)
        self.alphas_cumprod_f64 = np.cumprod(1.0 - self.betas)

    @cached_property
    def alphas_cumprod(self) -> Float[np.ndarray, "times"]:
        """(timesteps,) float32: the share of signal variance at each time."""
        return self.alphas_cumprod_f64.astype(np.float32)

    @cached_property
    def sqrt_alphas_cumprod(self) -> Float[np.ndarray, "times"]:
        """(timesteps,) float32."""
        return np.sqrt(self.alphas_cumprod_f64).astype(np.float32)

    @cached_property
    def sqrt_one_minus_alphas_cumprod(self) -> Float[np.ndarray, "times"]:
        """(timesteps,) float32."""
        return np.sqrt(1.0 - self.alphas_cumprod_f64).astype(np.float32)

    @cached_property
    def dynamic_scale(self) -> Float[np.ndarray, "more_times"]:
        """(turning_step + timesteps,) float32; only the first `timesteps` are used (quirk of the published buffers)."""
        config = self.config
        falling = np.linspace(1.0, config.base_scale, config.turning_step)
        return np.concatenate([falling, np.full(config.timesteps, config.base_scale)]).astype(np.float32)

    @cached_property
    def noise_levels(self) -> Float[np.ndarray, "times"]:
        """(timesteps,) float64: deviation of the noise over the signal at each time; infinite for pure noise.

        The dynamic scale is a part of the signal. This is the sigma of Karras et al. (2022, arXiv:2206.00364).
        """
        scale = self.dynamic_scale[: self.config.timesteps] if self.config.dynamic_rescale else 1.0
        with np.errstate(divide="ignore"):
            return np.sqrt(1.0 - self.alphas_cumprod_f64) / (np.sqrt(self.alphas_cumprod_f64) * scale)

    def buffers(self) -> HostParams:
        """The 13 buffers that a published checkpoint carries, by their official names, float32."""
        alphas_cumprod, betas = self.alphas_cumprod_f64, self.betas
        previous = np.append(1.0, alphas_cumprod[:-1])
        variance = betas * (1.0 - previous) / (1.0 - alphas_cumprod)
        buffers = {
            "betas": betas,
            "alphas_cumprod": alphas_cumprod,
            "alphas_cumprod_prev": previous,
            "sqrt_alphas_cumprod": np.sqrt(alphas_cumprod),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - alphas_cumprod),
            "log_one_minus_alphas_cumprod": np.log(1.0 - alphas_cumprod),
            "sqrt_recip_alphas_cumprod": np.zeros_like(betas),  # zeros under v-prediction
            "sqrt_recipm1_alphas_cumprod": np.zeros_like(betas),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
            "posterior_mean_coef1": betas * np.sqrt(previous) / (1.0 - alphas_cumprod),
            "posterior_mean_coef2": (1.0 - previous) * np.sqrt(1.0 - betas) / (1.0 - alphas_cumprod),
        }
        if self.config.dynamic_rescale:
            buffers["scale_arr"] = self.dynamic_scale
        return {name: value.astype(np.float32) for name, value in buffers.items()}


def rescale_to_zero_terminal_snr(betas: Float[np.ndarray, "times"]) -> Float[np.ndarray, "times"]:
    """Shifts and scales sqrt(alphas_cumprod) so that its last value is 0 and its first stays (spec section 6.1)."""
    root = np.sqrt(np.cumprod(1.0 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas_cumprod = root**2
    alphas = np.append(alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1])
    return 1.0 - alphas


def spaced_timesteps(timesteps: int, spacing: Spacing, steps: int) -> Int[np.ndarray, "visited"]:
    """The times that a run visits, ascending (spec section 6.3).

    Args:
      timesteps: number of diffusion times.
      spacing: `uniform_trailing` ends at the last time, which is pure noise; `uniform` never visits it. (`karras` needs
        noise levels: `spacing.run_timesteps`.)
      steps: number of steps asked for, 1 to `timesteps`.

    Raises:
      UserError: if the spacing is unknown or the number of steps does not fit.
    """
    if spacing not in get_args(Spacing):
        raise UserError(f"unknown timestep spacing '{spacing}': choose one of {', '.join(get_args(Spacing))}")
    check_steps(steps, timesteps)
    if spacing == "uniform_trailing":
        # differs from the published code: floating point may let `arange` reach 0, which would be the time -1
        times = np.round(np.arange(timesteps, 0, -timesteps / steps))[:steps][::-1] - 1
    else:
        times = np.arange(0, timesteps, timesteps // steps) + 1
    if times[-1] >= timesteps:
        raise UserError(
            f"'uniform' spacing with {steps} of {timesteps} steps leaves the schedule: use 'uniform_trailing'"
        )
    return times.astype(np.int32)


def check_steps(steps: int, timesteps: int) -> None:
    """Raises UserError unless a run of so many steps fits into so many times."""
    if not 1 <= steps <= timesteps:
        raise UserError(f"the number of sampling steps must be from 1 to {timesteps}, not {steps}")
