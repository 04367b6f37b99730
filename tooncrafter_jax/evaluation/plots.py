"""The plots of a report: numbers by frame, as in the paper's Figure 8, and numbers of methods with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tooncrafter_jax.evaluation.metrics.intervals import Interval
from tooncrafter_jax.io.figures import Figure, new_figure, save_figure
from tooncrafter_jax.io.markup import plot_text
from tooncrafter_jax.typing import HostArray

COLUMNS = 3
_ARROW = {"lower": "lower is better", "higher": "higher is better"}


def write_by_frame(path: Path, title: str, better: str, curves: Mapping[str, HostArray]) -> None:
    """Writes one metric over the frame index, a line a method (Figure 8 of the paper).

    Args:
      path: of the PNG.
      title: of the metric, with its unit.
      better: `lower` or `higher`.
      curves: title of a method -> its means (T,); nan where there is none.

    Raises:
      UserError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure(7.0, 3.6)
    axes = figure.add_subplot()
    for name, values in curves.items():
        axes.plot(np.arange(len(values)), values, marker="o", markersize=3, label=plot_text(name))
    axes.set(xlabel="frame", ylabel=f"{title} ({_ARROW[better]})")
    axes.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def write_intervals(path: Path, methods: Sequence[str], metrics: Sequence[tuple[str, str, Sequence[Interval]]]) -> None:
    """Writes a panel a metric with a bar a method and its interval.

    Args:
      path: of the PNG.
      methods: their titles.
      metrics: title, better direction, and the number of each method.

    Raises:
      UserError: matplotlib is not installed, or the file cannot be written.
    """
    labels = [plot_text(method) for method in methods]
    rows = math.ceil(len(metrics) / COLUMNS)
    height = 0.28 * len(methods) + 1.0
    figure = _figure(4.2 * min(COLUMNS, len(metrics)), height * rows)
    for number, (title, better, found) in enumerate(metrics, start=1):
        axes = figure.add_subplot(rows, min(COLUMNS, len(metrics)), number)
        values = np.array([interval.value for interval in found])
        reach = np.array([[interval.value - interval.low, interval.high - interval.value] for interval in found]).T
        axes.barh(labels, values, color="#3b7dd8", xerr=np.nan_to_num(reach), error_kw={"ecolor": "#333", "capsize": 2})
        axes.invert_yaxis()
        axes.set_title(f"{title} ({_ARROW[better]})", fontsize=9)
        axes.tick_params(labelsize=8)
        if (number - 1) % COLUMNS:
            axes.set_yticklabels([])
    save_figure(figure, path)


def _figure(width: float, height: float) -> Figure:
    return new_figure(width, height, extra="eval", purpose="the report of an evaluation")
