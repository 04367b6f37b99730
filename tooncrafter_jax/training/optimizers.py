"""Optimizers: Adam or Muon behind an optax mask that is built from the named parameter groups."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import optax
import optax.contrib

from tooncrafter_jax.training.run_config import OptimizerConfig
from tooncrafter_jax.typing import HasShape, Leaf, PyTree


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Step -> learning rate.

    Args:
      config: the optimizer's.
      steps: length of the run.
    """
    after: optax.Schedule = optax.constant_schedule(config.learning_rate)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.learning_rate, max(1, steps - config.warmup_steps))
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(
    config: OptimizerConfig, steps: int, is_trained: Callable[[str], bool]
) -> optax.GradientTransformation:
    """An optimizer of a flat dict of parameters that sees only the trained ones.

    Frozen parameters have no optimizer state, and clipping knows only the norm of trained gradients. `update` takes
    gradients in which frozen parameters have an `optax.MaskedNode` (see `masked`), so that no gradient of theirs is
    ever computed.

    Args:
      config: the optimizer's.
      steps: length of the run.
      is_trained: whether a parameter path is trained.
    """
    parts: list[optax.GradientTransformation] = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    rate = learning_rate(config, steps)
    if config.name == "muon":
        parts.append(_muon(config, rate))
    else:
        parts.append(optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))
        if config.name == "adamw":
            parts.append(optax.add_decayed_weights(config.weight_decay))
        parts.append(optax.scale_by_learning_rate(rate))
    if config.factors:
        parts.append(_scale_by_group(config))
    return optax.masked(optax.chain(*parts), lambda params: {path: is_trained(path) for path in params})  # pyright: ignore


MUON_MOMENTUM = 0.95
"""As in arXiv 2502.16982."""
MUON_RMS = 0.2
"""Root mean square of an update of Muon in learning rates: that of Adam's, so that rates carry over (arXiv 2502.16982,
2.2).
"""


def _muon(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon for kernels, whose axes but the last count as inputs, and NAdamW for everything else, with the same rate."""

    def matrices(params: PyTree) -> PyTree:
        return {path: _as_matrix(path, value) for path, value in params.items()}

    return optax.contrib.muon(
        rate,
        beta=MUON_MOMENTUM,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=MUON_RMS,
    )


def _as_matrix(path: str, value: HasShape | optax.MaskedNode) -> optax.contrib.MuonDimensionNumbers | None:
    """How Muon reads a parameter as a matrix; None for what is none, such as biases and tables of embeddings."""
    if not path.endswith("kernel") or isinstance(value, optax.MaskedNode) or len(value.shape) < 2:
        return None
    last = len(value.shape) - 1
    return optax.contrib.MuonDimensionNumbers(tuple(range(last)), (last,))


def _scale_by_group(config: OptimizerConfig) -> optax.GradientTransformation:
    """Multiplies updates by their groups' factors."""

    def scaled(updates: PyTree, params: PyTree = None) -> PyTree:
        del params
        factors = {path: config.rate_factor(path) for path in updates}
        return {path: jax.tree.map(partial(operator.mul, factors[path]), update) for path, update in updates.items()}

    return optax.stateless(scaled)


def masked(trained: Mapping[str, Leaf], like: Iterable[str]) -> dict[str, Leaf | optax.MaskedNode]:
    """Trained entries with an `optax.MaskedNode` for every other path of `like`."""
    return {path: trained.get(path, optax.MaskedNode()) for path in like}


def state_bytes(state: PyTree) -> int:
    """Size of an optimizer state, abstract or not."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
