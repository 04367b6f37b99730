"""The options of `curate` that say how clips are measured."""

from __future__ import annotations

import argparse

from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.declared_options import add_declared, given_options
from tooncrafter_jax.cli.vocabulary import add_clip_weights
from tooncrafter_jax.curation.measurements import Measurements


def add_measurements(parser: Parser, *, films: bool = False) -> None:
    """The options of the stages.

    Args:
      parser: gets them.
      films: whether clips are of films, of which more has to be found out.
    """
    add = parser.add_argument_group("how clips are measured").add_argument
    of_films = ("captions", "blip2") if films else ()
    add_declared(add, Measurements, ("motion", "text", "craft_weights", "fingerprints", *of_films))
    add_clip_weights(add, "the agreement of captions and frames, and aesthetic scores")
    add_declared(add, Measurements, ("aesthetic_head",))
    parser.set_defaults(films=films)


def measurements_of(arguments: argparse.Namespace) -> Measurements:
    """What the command line asks for."""
    return Measurements(
        films=arguments.films,
        clip_weights=arguments.clip_weights,
        quick_gelu=arguments.quick_gelu,
        **given_options(arguments, Measurements),
    )
