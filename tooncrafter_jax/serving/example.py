"""The example shot of a first start: two drawings that are made here, and what lies between them by the model."""

from __future__ import annotations

import logging

from PIL import Image, ImageDraw

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.request import make_options
from tooncrafter_jax.serving.descriptions import described
from tooncrafter_jax.serving.engine import Busy, Engine
from tooncrafter_jax.serving.models import named

_log = logging.getLogger(__name__)
GIVEN = "example"
"""The setting that says that the folder had its example."""
INK, SKY, GRASS, BALL, EYE = "#1d1b22", "#bfe3f5", "#8fc66b", "#f2b134", "#ffffff"
SCALE = 4
"""Drawn so much larger and reduced, so that lines are smooth."""


def ball(height: int, width: int, x: float, y: float) -> Image.Image:
    """A ball with a face on a meadow.

    Args:
      height: of the picture, in pixels.
      width: the same.
      x: of the ball's middle, as a share of the width.
      y: the same of the height.
    """
    unit, wide = height * SCALE, width * SCALE
    image = Image.new("RGB", (wide, unit), SKY)
    draw, line = ImageDraw.Draw(image), max(1, unit // 64)
    draw.rectangle((-line, 0.72 * unit, wide + line, unit + line), GRASS, INK, line)

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """Of places from the ball's middle."""
        return wide * x + unit * left, unit * (y + top), wide * x + unit * right, unit * (y + bottom)

    draw.ellipse(box(-0.17, -0.17, 0.17, 0.17), BALL, INK, line)
    for eye in (-0.06, 0.06):
        draw.ellipse(box(eye - 0.035, -0.075, eye + 0.035, -0.005), EYE, INK, line)
    draw.arc(box(-0.07, -0.03, 0.07, 0.1), 20, 160, INK, line)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def give_example(engine: Engine, client: str) -> None:
    """Asks for the example in a client's name, if nobody has had it in this folder; a first start must not fail by it.

    Args:
      engine: makes it.
      client: who is here first.
    """
    storage = engine.storage
    if storage.database.setting(GIVEN) is not None:
        return
    try:
        model = named(engine.models, "").described
        options = make_options(model.sampling)
        height, width = options.size(model.config)
        pictures = []
        for place in ((0.25, 0.3), (0.75, 0.55)):
            incoming = storage.incoming()
            ball(height, width, *place).save(incoming, "PNG")
            pictures.append(storage.take_picture(incoming, client, "the example").sha256)
        keys = {"0": pictures[0], str(options.frames - 1): pictures[1]}
        request = {"name": "an example", "keys": keys}
        engine.submit(client, request, described(request), dict(zip(pictures, pictures, strict=True)))
        storage.database.set_setting(GIVEN, "given")
    except (UserError, Busy, OSError) as error:
        _log.warning("there is no example: %s", error)
