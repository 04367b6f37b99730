"""Compiles, when the server starts, what the first clips will need: the model is loaded, and blank
clips are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import Pair, Sketch, check_sketch_encoder, make_options, prepare
from tooncrafter_jax.serving.descriptions import Work, check
from tooncrafter_jax.serving.devices import ServedModel
from tooncrafter_jax.serving.limits import Limits

Chore = Callable[[Callable[[Progress], None]], None]
"""What the devices do while nobody waits; tells how far it is, and may be stopped by what it tells."""


def chores(model: ServedModel, limits: Limits) -> list[Chore]:
    """What compiles a model's programs for a single clip of its usual size: without sketches, and with.

    Args:
      model: is loaded by the first of them.
      limits: a clip that they forbid is not drawn; the chore raises UserError.
    """
    found: list[Chore] = [partial(_draw, model, limits, False)]
    try:
        check_sketch_encoder(model.described.config, model.described.components)
    except UserError:
        return found
    return [*found, partial(_draw, model, limits, True)]


def _draw(model: ServedModel, limits: Limits, has_sketch: bool, tell: Callable[[Progress], None]) -> None:
    """Draws a clip of blank paper; that progress is told makes another program, and clients are always told.

    A sketch has a line: without any, motion would not be bent to it, which is a program of its own.
    """
    known = model.described
    options = make_options(known.sampling)
    height, width = options.size(known.config)
    paper = np.full((height, width, 3), 255, np.uint8)
    drawn = paper.copy()
    drawn[height // 2 : height // 2 + 2, width // 4 : -(width // 4)] = 0
    sketches = {options.frames // 2: Sketch(drawn, dark_lines=True)} if has_sketch else None
    pair = Pair(paper, paper, sketches=sketches)
    with collected():  # nobody has asked for it
        check(Work(pair, options, {}), known, limits)
        model.sample([prepare(pair, options, known.config)], options, tell)
