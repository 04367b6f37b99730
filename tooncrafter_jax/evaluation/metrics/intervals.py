"""How far a metric's number may be off because of the clips that it happened to be measured on.

Whole clips are drawn again with replacement (Efron 1979), what was made together with its truth, and the metric is made
of each draw. The interval is the number, give or take t standard deviations of the draws; t is the quantile of
Student's distribution for one degree of freedom less than there are clips, and the deviation is scaled by sqrt(n / (n -
1)), so that for means the interval is the textbook one.

Quantiles of the draws would be wrong for the Fréchet distance: a draw holds about 63 % of the clips, some of them
several times, which lowers the rank of its covariances, and all draws lie above the number. Such a bias moves every
draw alike and leaves their spread. On simulated features of 300 clips the draws lay a third above the number, while
their standard deviation was 0.95 times the true one with 100 features and 1.4 times with 400: where there are fewer
clips than features, the interval errs on the wide side. It is one for this many clips: the distance of a larger set is
smaller for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy.special import stdtrit

from tooncrafter_jax.evaluation.metrics.metric import Metric, Rows
from tooncrafter_jax.typing import HostArray

DRAWS = 1000
"""For metrics that do not say how many in `bootstrap_draws`."""
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number and the bounds that hold the number of other clips of the same kind in 95 of 100 cases.

    Attributes:
      value: the number of all clips.
      low, high: the bounds; nan with fewer than two clips.
    """

    value: float
    low: float
    high: float


def interval(metric: Metric, rows: Rows, *, draws: int | None = None, seed: int = 0, level: float = LEVEL) -> Interval:
    """A metric's number with its interval; the same for the same rows and seed.

    Args:
      metric: any metric. An attribute `bootstrap_draws` says how many draws it is to have by default.
      rows: of all clips, in any order that is the same each time.
      draws: how many, at least 2.
      seed: of the draws. Sets of equally many clips are drawn alike under one seed.
      level: share of cases that the bounds are for, between 0 and 1.

    Raises:
      ValueError: rows of different lengths, or fewer than 2 draws.
    """
    count = _count(rows)
    return _interval(lambda index: metric.summarise(_taken(rows, index)), count, _draws(metric, draws), seed, level)


def difference(
    metric: Metric, rows: Rows, others: Rows, *, draws: int | None = None, seed: int = 0, level: float = LEVEL
) -> Interval:
    """How much larger a metric is for one method than for another, measured on the same clips in the same order.

    Much narrower than what two separate intervals say, because both methods are hard put by the same clips.

    Args:
      metric: any metric.
      rows: of the one method.
      others: of the other.
      draws: as for `interval`.
      seed: as for `interval`.
      level: as for `interval`.

    Raises:
      ValueError: rows of different lengths, or fewer than 2 draws.
    """
    count = _count({**rows, **{f"other {name}": row for name, row in others.items()}})

    def number(index: Int[np.ndarray, "clips"]) -> float:
        return metric.summarise(_taken(rows, index)) - metric.summarise(_taken(others, index))

    return _interval(number, count, _draws(metric, draws), seed, level)


def _interval(number: Callable[[np.ndarray], float], clips: int, draws: int, seed: int, level: float) -> Interval:
    value = number(np.arange(clips))
    if clips < 2 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    drawn = np.array([number(random.integers(clips, size=clips)) for _ in range(draws)])
    drawn = drawn[~np.isnan(drawn)]  # draws of clips without a number alone
    if len(drawn) < 2:
        return Interval(value, float("nan"), float("nan"))
    error = drawn.std(ddof=1) * np.sqrt(clips / (clips - 1))
    reach = float(stdtrit(clips - 1, (1 + level) / 2) * error)
    return Interval(value, value - reach, value + reach)


def _draws(metric: Metric, draws: int | None) -> int:
    chosen = getattr(metric, "bootstrap_draws", DRAWS) if draws is None else draws
    if chosen < 2:
        raise ValueError(f"an interval takes at least 2 draws, not {chosen}")
    return chosen


def _taken(rows: Rows, index: np.ndarray) -> Mapping[str, HostArray]:
    return {name: row[index] for name, row in rows.items()}


def _count(rows: Rows) -> int:
    lengths = {name: len(row) for name, row in rows.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"all rows must be of the same clips, not of {lengths}")
    return next(iter(lengths.values()))
