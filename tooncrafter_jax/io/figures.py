"""Figures drawn with matplotlib, without a display and the same in every run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from tooncrafter_jax.errors import missing_extra
from tooncrafter_jax.io.atomic_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = object  # matplotlib is loaded when something is drawn


def new_figure(width: float, height: float, *, extra: str, purpose: str) -> Figure:
    """An empty matplotlib figure.

    Args:
      width: in hundreds of pixels.
      height: likewise.
      extra: which extra brings matplotlib to its user.
      purpose: what the figure is for, in the message where it is missing.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", extra, purpose) from error
    figure = Figure((width, height), dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG.

    Raises:
      UserError: the file cannot be written.
    """
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
