"""The options that the subcommands of `curate` share: where sets go, which clips they have, and how the work is
done.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence

from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.declared_options import flag_of, given_options
from tooncrafter_jax.cli.vocabulary import Add, add_out, add_quiet, add_shared, check_at_least_one
from tooncrafter_jax.curation.splits import SplitRule
from tooncrafter_jax.curation.thresholds import Thresholds
from tooncrafter_jax.data.clip_sets import SHARD_BYTES
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.options import declared

OFF = "off"


def add_where(parser: Parser) -> None:
    """The options --out, --workers, --shard-megabytes and --quiet."""
    add = parser.add_argument_group("where it goes, and how").add_argument
    add_out(add, "the set, its report, and what a later run goes on from", required=True)
    add_shard_size(add, SHARD_BYTES)
    add_workers(add)


def add_shard_size(add: Add, default_bytes: int) -> None:
    """The option --shard-megabytes."""
    add_shared(
        add, "--shard-megabytes", " (default: %(default)s)", type=int, default=default_bytes // 2**20, metavar="N"
    )


def add_workers(add: Add) -> None:
    """The options --workers and --quiet."""
    more = "; 0 does it all in this one (default: one for each core)"
    add_shared(add, "--workers", more, type=int, metavar="N")
    add_quiet(add)


def add_choice(parser: Parser, *, again: bool = False) -> None:
    """The options of thresholds and splits; with `again`, those that are left out stay as they were."""
    add = parser.add_argument_group("which clips the set has").add_argument
    for cls, parse, more in ((Thresholds, _number_or_off, "; off: any"), (SplitRule, _number, "")):
        for one in declared(cls).values():
            add(
                flag_of(one),
                type=parse,
                default=argparse.SUPPRESS if again else one.default,
                metavar="X",
                help=f"{one.description}{more} (default: {'as before' if again else one.default})",
            )


def chosen_thresholds(arguments: argparse.Namespace) -> dict[str, int | float | None]:
    """The thresholds that were given, or all of them with their defaults."""
    return given_options(arguments, Thresholds)


def chosen_splits(arguments: argparse.Namespace) -> dict[str, int | float]:
    """The sizes of splits that were given, or all of them with their defaults."""
    return given_options(arguments, SplitRule)


def checked_workers(arguments: argparse.Namespace) -> int | None:
    """The number of processes.

    Raises:
      UserError: it is negative.
    """
    if arguments.workers is not None and arguments.workers < 0:
        raise UserError(f"--workers is {arguments.workers}: give 0 or more")
    return arguments.workers


def checked_shard_bytes(arguments: argparse.Namespace) -> int:
    """The size at which a shard ends.

    Raises:
      UserError: it is below a megabyte.
    """
    check_at_least_one(arguments, "shard_megabytes")
    return arguments.shard_megabytes * 2**20


def without_beam_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own arguments, and those behind `--`, which are for Beam."""
    argv = list(argv)
    if "--" not in argv:
        return argv, []
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]


def defaults_of(config: type) -> Mapping[str, object]:
    """The defaults of a dataclass by field."""
    return {f.name: f.default for f in dataclasses.fields(config) if f.default is not dataclasses.MISSING}


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number_or_off(text: str) -> int | float | None:
    return None if text == OFF else _number(text)


_number.__name__ = "number"  # as argparse calls it when it complains
_number_or_off.__name__ = "number"
