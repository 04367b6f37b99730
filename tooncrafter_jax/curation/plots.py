"""The plots of the curation report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tooncrafter_jax.io.figures import Figure, new_figure, save_figure

KEPT, DROPPED, LIMIT = "#3b7dd8", "#c9c9c9", "#d0342c"
_BINS = 60
_LABEL_CHARACTERS = 90
_FAR_SHARE = 0.995
"""Values beyond this share of all are counted in the last bin, so that a few do not squeeze the rest."""


def write_histogram(
    path: Path, name: str, unit: str, values: Sequence[tuple[float, bool]], limit: int | float | None
) -> None:
    """Writes a histogram of a score, of kept clips upon dropped ones, with its threshold.

    Args:
      path: of the PNG.
      name: of the score.
      unit: written below.
      values: score, and whether the clip is kept, of each clip; not empty.
      limit: the threshold, or None.

    Raises:
      UserError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure(8.0, 2.8)
    axes = figure.add_subplot()
    numbers = np.array([value for value, _ in values])
    kept = np.array([is_kept for _, is_kept in values])
    low, high = float(numbers.min()), float(np.quantile(numbers, _FAR_SHARE, method="higher"))
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    clipped = np.minimum(numbers, high)
    axes.hist(
        [clipped[kept], clipped[~kept]],
        edges.tolist(),
        stacked=True,
        color=[KEPT, DROPPED],
        label=[f"kept ({kept.sum()})", f"dropped for any reason ({(~kept).sum()})"],
    )
    if limit is not None:
        axes.axvline(limit, color=LIMIT, label=f"threshold {limit:g}")
    axes.set(title=name, xlabel=textwrap.fill(unit, _LABEL_CHARACTERS), ylabel="clips")
    axes.yaxis.get_major_locator().set_params(integer=True)  # pyright: ignore[reportCallIssue]
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    save_figure(figure, path)


def write_counts(path: Path, left: Sequence[tuple[str, int]]) -> None:
    """Writes bars of how many clips are left after each step, with what it dropped.

    Raises:
      UserError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure(8.0, 0.35 * len(left) + 0.8)
    axes = figure.add_subplot()
    names, counts = [name for name, _ in left], np.array([count for _, count in left])
    dropped = np.concatenate([[0], counts[:-1] - counts[1:]])
    axes.barh(names, counts, color=KEPT)
    axes.barh(names, dropped, left=counts, color=DROPPED)
    for row, (count, loss) in enumerate(zip(counts, dropped, strict=True)):
        axes.text(count + loss, row, f" {count}" + (f" (−{loss})" if loss else ""), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.xaxis.get_major_locator().set_params(integer=True)  # pyright: ignore[reportCallIssue]
    axes.set(xlabel="clips left after this step, and dropped in it")
    save_figure(figure, path)


def _figure(width: float, height: float) -> Figure:
    return new_figure(width, height, extra="data", purpose="the report of a set of clips")
