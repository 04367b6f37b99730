"""Low-rank adaptation while training: which kernels are adapted, and what their factors start from (see
`weights.lora`).

A is drawn as the layer itself would be, B is zero, so that training starts from the unadapted model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.training.run_config import ranged
from tooncrafter_jax.typing import HasShape, HostParams
from tooncrafter_jax.weights.lora import PREFIX, matrix_shape


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation: instead of chosen kernels, small factors beside them are trained.

    Attributes:
      rank: of the factors; 0 for no adaptation.
      alpha: the product of the factors is scaled by alpha / rank.
      targets: parts of paths; kernels of the trained groups whose path contains one of them are adapted, those of
        convolutions too (e.g. "conv_").
    """

    rank: int = ranged(0, least=0)
    alpha: float = 16.0
    targets: tuple[str, ...] = ("attention.", "feed_forward.")

    @property
    def scale(self) -> float:
        """Factor of the product."""
        return self.alpha / self.rank


def targets(config: LoraConfig, shapes: Iterable[str], is_chosen: Callable[[str], bool], stage: str) -> list[str]:
    """The kernels that are adapted: those of chosen parameters whose path has one of the targets in it.

    Args:
      config: of the adaptation.
      shapes: paths of all parameters.
      is_chosen: whether a path is in the groups that are trained.
      stage: whose options these are.

    Raises:
      UserError: there are none.
    """
    found = [
        path
        for path in shapes
        if is_chosen(path) and path.endswith(".kernel") and any(part in path for part in config.targets)
    ]
    if not found:
        raise UserError(f"config.{stage}.lora.targets {list(config.targets)} match no kernel of the trained groups")
    return found


def init(config: LoraConfig, shapes: Mapping[str, HasShape], paths: list[str], seed: int) -> HostParams:
    """Fresh factors for these kernels."""
    factors = {}
    for number, path in enumerate(paths):
        inputs, outputs = matrix_shape(shapes[path].shape)
        draw = np.random.default_rng([seed, number])
        bound = inputs**-0.5
        factors[f"{PREFIX}{path}.a"] = draw.uniform(-bound, bound, (inputs, config.rank)).astype(np.float32)
        factors[f"{PREFIX}{path}.b"] = np.zeros((config.rank, outputs), np.float32)
    return factors
