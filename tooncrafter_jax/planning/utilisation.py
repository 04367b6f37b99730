"""Model FLOP utilisation: the share of the devices' peak that the mathematics of a step makes use of."""

from __future__ import annotations

import jax

from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.planning.plan import minimum_flops
from tooncrafter_jax.planning.topologies import CHIPS
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.stages import make_stage

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": CHIPS["v5e"].flops,
    "TPU v5p": CHIPS["v5p"].flops,
    "TPU v5": CHIPS["v5p"].flops,
    "TPU v6 lite": CHIPS["v6e"].flops,
    "TPU7x": 2307e12
    / 2,  # "TPU7x (Ironwood)" of the Cloud TPU documentation; JAX sees the two halves of a chip as devices
    "NVIDIA A10": 125e12,  # data sheet "NVIDIA A10 Tensor Core GPU", without sparsity
    "NVIDIA A10G": 70e12,  # data sheet "NVIDIA A10G", without sparsity
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,  # data sheet "NVIDIA L4 Tensor Core GPU": 242 with sparsity
    "NVIDIA L40": 181e12,  # data sheet "NVIDIA L40": 362 with sparsity
    "NVIDIA L40S": 362e12,  # data sheet "NVIDIA L40S": 733 with sparsity
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,  # data sheet "NVIDIA DGX B200": 36 PFLOPS of eight with sparsity, half without
}
"""First words of a device's kind -> dense bfloat16 operations a second, by the manufacturers; the longest that fits
counts.
"""


def peak_of(kind: str) -> float | None:
    """Of one device by its kind; None where it is not known."""
    fitting = [name for name in PEAK_FLOPS if kind == name or kind.startswith((f"{name} ", f"{name}-"))]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def peak_flops() -> float | None:
    """Of all devices together; None where the kind is not known."""
    found = peak_of(jax.devices()[0].device_kind)
    return None if found is None else found * jax.device_count()


def seconds_at_peak(config: TrainConfig, model: ModelConfig) -> float | None:
    """Seconds that a step would take at the devices' peak, without what checkpointed blocks compute again.

    Utilisation is this over the seconds that a step takes. None where the devices' peak is not known, and for float32,
    which has another peak. Traces the step, which takes a minute for the published size.
    """
    peak = peak_flops()
    if peak is None or config.dtype != "bfloat16":
        return None
    flops = minimum_flops(make_stage(config, model))
    return (flops.forward + flops.backward) / peak
