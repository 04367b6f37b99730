"""What scripts share that measure on held-out clips: their options, the model, the clips, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from tooncrafter_jax import ToonCrafter, UserError
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.evaluation.true_clips import Start, TrueClips, WindowRule
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.sampling.request import SamplingOptions, make_options
from tooncrafter_jax.sketches import SketchExtractor
from tooncrafter_jax.typing import Uint8Video


class HeldOut(NamedTuple):
    """What is measured.

    Attributes:
      toon: draws.
      options: how.
      rule: which frames of a clip are taken.
      clips: the truth.
    """

    toon: ToonCrafter
    options: SamplingOptions
    rule: WindowRule
    clips: TrueClips


def parser_of(description: str | None, *, limit: int, steps: int | None = None) -> argparse.ArgumentParser:
    """The options --set, --split, --limit, --model and --steps.

    Args:
      description: of the script.
      limit: of clips by default.
      steps: of sampling by default; None: the model's.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="directory of a clip set")
    parser.add_argument("--split", default="test", help="of the set (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=limit, help="how many clips (default: %(default)s)")
    parser.add_argument("--model", default="small", help="checkpoint directory, or a name (default: %(default)s)")
    usual = "the model's" if steps is None else "%(default)s"
    parser.add_argument("--steps", type=int, default=steps, help=f"sampling steps (default: {usual})")
    return parser


def held_out(
    arguments: argparse.Namespace,
    *,
    frames: int | None = None,
    start: Start = WindowRule.start,
    stride: int = WindowRule.stride,
    size: int | None = None,
) -> HeldOut:
    """The model and the clips that are asked for.

    Args:
      arguments: of `parser_of`.
      frames: that are taken of a clip; None: as many as are drawn.
      start: where in a clip they are taken.
      stride: step between them.
      size: pixels of a side; None: the model's.

    Raises:
      UserError: the model or the set cannot be had, or an option is out of range.
    """
    toon = ToonCrafter.load(arguments.model)
    given = {"steps": arguments.steps, "height": size, "width": size}
    options = make_options({**toon.sampling, **{name: value for name, value in given.items() if value is not None}})
    options.check(toon.config)
    height, width = options.size(toon.config)
    rule = WindowRule(options.frames if frames is None else frames, height, width, stride, start)
    return HeldOut(toon, options, rule, TrueClips(ClipSet(arguments.set, arguments.split), rule, arguments.limit))


def sketches_of(extractor: SketchExtractor, video: Uint8Video) -> Float[np.ndarray, "T H W"]:
    """The lines of each frame, 0 to 1, dark on light."""
    return np.asarray(extractor(to_pixels(jnp.asarray(video))))[..., 0]


def as_pictures(sketches: Float[np.ndarray, "*T H W"]) -> UInt8[np.ndarray, "*T H W 3"]:
    """Sketches as grey pictures."""
    return np.repeat(np.rint(255 * sketches).astype(np.uint8)[..., None], 3, axis=-1)


def end(main: Callable[[], None]) -> NoReturn:
    """Runs a script and ends the process; a user's mistake becomes one line."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.exit(0)
