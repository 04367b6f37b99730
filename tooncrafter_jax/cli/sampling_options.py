"""The options of every command that samples a model (spec section 11.1)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.declared_options import add_declared, given_options
from tooncrafter_jax.cli.vocabulary import Add, add_attention
from tooncrafter_jax.options import declared
from tooncrafter_jax.sampling.request import SamplingOptions, make_options

OF_THE_CLIP = ("frames", "height", "width", "fit", "control_scale", "alpha", "background", "two_backgrounds")
"""Options that say what a clip is like; the others say how the denoiser and the decoder run."""


def add_sampling(parser: Parser, title: str = "how to sample") -> Add:
    """Adds the options that say how the denoiser and the decoder run; returns the group's `add_argument` for more."""
    add = parser.add_argument_group(title).add_argument
    names = [name for name, one in declared(SamplingOptions).items() if not one.option.of_python]
    names.sort(key=lambda name: name != "solver")  # which the first of the others are for
    add_declared(add, SamplingOptions, [name for name in names if name not in OF_THE_CLIP])
    add_attention(add)
    return add


def sampling_options(arguments: argparse.Namespace, own: Mapping[str, object], **others: object) -> SamplingOptions:
    """What the command line asks for.

    Args:
      arguments: all options.
      own: what suits the model, for options that are not given.
      **others: options that a command decides by itself.

    Raises:
      UserError: the model's own options are none.
    """
    return make_options({**own, **given_options(arguments, SamplingOptions), **others})
