"""`tooncrafter curate films|fluent-emoji|bodies|rethreshold|embed`: makes sets of clips to train on."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tooncrafter_jax.cli import embed
from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Parser, one_line
from tooncrafter_jax.cli.curation_options import (
    add_choice,
    add_where,
    add_workers,
    checked_shard_bytes,
    checked_workers,
    chosen_splits,
    chosen_thresholds,
    defaults_of,
    without_beam_flags,
)
from tooncrafter_jax.cli.curation_stages import add_measurements, measurements_of
from tooncrafter_jax.cli.declared_options import add_declared, given_options
from tooncrafter_jax.cli.vocabulary import add_shared, add_size
from tooncrafter_jax.curation.measurements import notes_on
from tooncrafter_jax.curation.protocols import Production
from tooncrafter_jax.curation.splits import SplitRule
from tooncrafter_jax.curation.thresholds import Thresholds
from tooncrafter_jax.curation.workspace import SourceResult
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.notes import note

PROGRAM = "tooncrafter curate"
EPILOG = """\
A run that was stopped goes on where it was when the same command is given again. What is measured is kept, so
`curate rethreshold DIR` chooses other clips without measuring again. DIR/report/index.html shows what was kept, and
what was dropped and why: look at it before training.
"""
BEAM = """
Arguments behind -- are for Apache Beam, and let other machines do the work, which must see DIR and the sources under
the same paths: ... --out DIR -- --runner=FlinkRunner --flink_master=host:8081
"""
EXIT_CODES = """
exit codes: 0 done; 1 done, but some sources failed; 2 something is wrong with the request; 130 Ctrl-C
"""


def main(argv: list[str]) -> int:
    """Dispatches to a subcommand; see `--help` of each.

    Returns:
      0; 1 if the set was made but some sources failed. A mistake raises `UserError`.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: {PROGRAM} COMMAND [--help] ...\n\nMakes sets of clips to train on.\n")
        for name, command in COMMANDS.items():
            print(f"  {name:14} {command.purpose}")
        return EXIT_OK if argv else EXIT_USAGE
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command 'curate {argv[0]}': choose one of {', '.join(COMMANDS)}")
    try:
        return COMMANDS[argv[0]].main(argv[1:])
    except KeyboardInterrupt:
        raise KeyboardInterrupt("finished sources are kept, and the same command makes the rest") from None


def films_parser() -> Parser:
    """All options of `films`."""
    from tooncrafter_jax.curation.films import FilmOptions

    parser = _parser(
        "films",
        "Cuts films into shots and shots into clips, measures them, and writes those that are good enough as a set:\n\n"
        f"  {PROGRAM} films films/ episode.mkv --out sets/cartoons",
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="SRC", help="a film, or a folder to look for films in")
    add_where(parser)
    add_declared(parser.add_argument_group("how films become clips").add_argument, FilmOptions)
    add_measurements(parser, films=True)
    add_choice(parser)
    return parser


def films(argv: list[str]) -> int:
    """Films into clips of their shots."""
    from tooncrafter_jax.curation.films import FilmOptions

    arguments, flags = _parse(films_parser(), argv)
    production = FilmOptions(**given_options(arguments, FilmOptions)).films(arguments.sources)
    return _curate(production, arguments, flags)


def fluent_emoji_parser() -> Parser:
    """All options of `fluent-emoji`."""
    from tooncrafter_jax.curation.synthetic.fluent_emoji import FluentEmoji

    parser = _parser(
        "fluent-emoji",
        "Makes a cartoon set of Microsoft's animated Fluent emoji (MIT) over drawn backgrounds, with captions. The "
        "packages are\nfetched with npm once (about 730 MB):\n\n"
        f"  {PROGRAM} fluent-emoji --out sets/emoji --height 320 --width 512",
    )
    add_where(parser)
    default = defaults_of(FluentEmoji)
    add = parser.add_argument_group("what is drawn").add_argument
    more = ": @lobehub/fluent-emoji-anim-1 to -4, untarred"
    add_shared(add, "--packages", more, nargs="+", type=Path, default=[], metavar="DIR")
    add("--cache", type=Path, metavar="DIR", help="where fetched packages are kept (default: ~/.cache/tooncrafter_jax)")
    add(
        "--scenes",
        type=int,
        default=default["scenes"],
        metavar="N",
        help="clips of each drawing (default: %(default)s)",
    )
    add("--backgrounds", type=Path, metavar="DIR", help="pictures to use instead of drawn backgrounds")
    _add_rendering(add, default)
    add_measurements(parser)
    add_choice(parser)
    return parser


def fluent_emoji(argv: list[str]) -> int:
    """Animated emoji into clips."""
    from tooncrafter_jax.curation.synthetic.fluent_emoji import FluentEmoji

    arguments, flags = _parse(fluent_emoji_parser(), argv)
    production = FluentEmoji(
        folders=tuple(map(str, arguments.packages)),
        cache=str(arguments.cache or ""),
        height=arguments.height,
        width=arguments.width,
        scenes=arguments.scenes,
        seed=arguments.seed,
        backgrounds=str(arguments.backgrounds or ""),
    )
    return _curate(production, arguments, flags)


def bodies_parser() -> Parser:
    """All options of `bodies`."""
    from tooncrafter_jax.curation.synthetic.bodies import Bodies

    parser = _parser(
        "bodies",
        "Makes a set of simulated bodies that tumble and collide before a moving camera, for general motion:\n\n"
        f"  {PROGRAM} bodies --out sets/bodies --count 5000",
    )
    add_where(parser)
    default = defaults_of(Bodies)
    add = parser.add_argument_group("what is rendered").add_argument
    add("--count", type=int, default=default["count"], metavar="N", help="scenes, a clip each (default: %(default)s)")
    _add_rendering(add, default, frames=True)
    add_measurements(parser)
    add_choice(parser)
    return parser


def bodies(argv: list[str]) -> int:
    """Rendered bodies into clips."""
    from tooncrafter_jax.curation.synthetic.bodies import Bodies

    arguments, flags = _parse(bodies_parser(), argv)
    production = Bodies(
        count=arguments.count,
        height=arguments.height,
        width=arguments.width,
        frames=arguments.frames,
        seed=arguments.seed,
    )
    return _curate(production, arguments, flags)


def rethreshold_parser() -> Parser:
    """All options of `rethreshold`."""
    parser = _parser(
        "rethreshold",
        "Chooses the clips of a set again by other thresholds or splits, measuring nothing again, and rewrites set and "
        f"report:\n\n  {PROGRAM} rethreshold sets/cartoons --min-motion 0.5",
        takes_beam=False,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="what --out was when the set was made")
    add_workers(parser.add_argument)
    add_choice(parser, again=True)
    return parser


def rethreshold(argv: list[str]) -> int:
    """Another choice of the clips that were measured."""
    from tooncrafter_jax.curation import pipeline

    arguments = rethreshold_parser().parse_args(argv)

    outcome = pipeline.rethreshold(
        arguments.directory,
        thresholds=chosen_thresholds(arguments),
        splits=chosen_splits(arguments),
        workers=checked_workers(arguments),
        listener=_listener(arguments.quiet),
    )
    return _report(outcome)


class Subcommand(NamedTuple):
    """One of the things that `curate` does.

    Attributes:
      main: takes the arguments and returns the exit code.
      build_parser: makes what reads them.
      purpose: for the list of subcommands.
    """

    main: Callable[[list[str]], int]
    build_parser: Callable[[], Parser]
    purpose: str


COMMANDS = {
    "films": Subcommand(films, films_parser, "films -> shots -> clips, measured and chosen"),
    "fluent-emoji": Subcommand(
        fluent_emoji, fluent_emoji_parser, "animated emoji over backgrounds: a cartoon set that anyone can make"
    ),
    "bodies": Subcommand(bodies, bodies_parser, "rendered bodies in motion: a set for a general base model"),
    "rethreshold": Subcommand(rethreshold, rethreshold_parser, "choose the clips of a set again by other thresholds"),
    "embed": Subcommand(
        embed.main, embed.build_parser, "run the frozen encoders over a set once, for training that need not run them"
    ),
}


def _parser(name: str, description: str, *, takes_beam: bool = True) -> Parser:
    epilog = EPILOG + (BEAM if takes_beam else "") + EXIT_CODES
    return Parser(f"{PROGRAM} {name}", description=description, epilog=epilog)


def _parse(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    own, flags = without_beam_flags(argv)
    return parser.parse_args(own), flags


def _add_rendering(add: Callable[..., object], default: Mapping[str, object], *, frames: bool = False) -> None:
    add_size(add, default, "a clip", frames=frames)
    add_shared(add, "--seed", "s (default: %(default)s)", type=int, default=default["seed"], metavar="N")


def _curate(production: Production, arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    from tooncrafter_jax.curation import pipeline

    thresholds = Thresholds.from_json(chosen_thresholds(arguments))
    splits = SplitRule(**chosen_splits(arguments))
    workers, shard_bytes = checked_workers(arguments), checked_shard_bytes(arguments)
    stages = measurements_of(arguments).stages()
    for sentence in notes_on(stages, production.sources()):
        note(sentence)
    outcome = pipeline.curate(
        production,
        stages,
        arguments.out,
        thresholds=thresholds,
        splits=splits,
        workers=workers,
        beam_arguments=flags,
        shard_bytes=shard_bytes,
        listener=_listener(arguments.quiet),
    )
    return _report(outcome)


def _listener(quiet: bool):
    from tooncrafter_jax.curation.pipeline import Listener

    if quiet:
        return Listener()
    done, total, telling = 0, 0, threading.Lock()

    def on_start(sources: int, reused: int) -> None:
        nonlocal done, total
        done, total = reused, sources
        if reused:
            print(f"{reused} of {sources} sources were finished before", file=sys.stderr)

    def on_source(result: SourceResult) -> None:
        nonlocal done
        with telling:
            done += 1
            what = "failed" if result.failure else f"{len(result.clips)} clips"
            print(
                f"{done}/{total} {one_line(result.source)}: {what}, {result.seconds:.1f} s", file=sys.stderr, flush=True
            )

    return Listener(on_start, on_source, lambda step: print(f"{step} ...", file=sys.stderr, flush=True))


def _report(outcome) -> int:
    decision = outcome.decision
    splits = ", ".join(f"{len(clips)} {name}" for name, clips in decision.splits.items())
    dropped = ", ".join(f"{len(clips)} {reason}" for reason, clips in decision.dropped.items())
    print(f"sources: {outcome.made} made, {outcome.reused} done before, {len(outcome.failures)} failed")
    print(
        f"clips: {decision.num_kept} kept ({splits}), {decision.num_dropped} dropped"
        + (f" ({dropped})" if dropped else "")
    )
    print(f"set: {printable(outcome.set_directory)}")
    print(f"report: {printable(outcome.report)}")
    for source, reason in outcome.failures.items():
        print(f"error: {one_line(source)} failed: {one_line(reason)}", file=sys.stderr)
    return EXIT_FAILED if outcome.failures else EXIT_OK
