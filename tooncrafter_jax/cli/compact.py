"""`tooncrafter compact SRC DST`."""

from __future__ import annotations

from pathlib import Path

from tooncrafter_jax.cli.common import EXIT_OK, Parser, interruption_note
from tooncrafter_jax.cli.vocabulary import add_overwrite, add_stored_dtype
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.models.configuration import OPTIONAL_COMPONENTS
from tooncrafter_jax.options import declared, value_of
from tooncrafter_jax.sampling.request import SamplingOptions, make_options
from tooncrafter_jax.weights.compact import DTYPES, compact
from tooncrafter_jax.weights.store import Checkpoint

DESCRIPTION = """\
Copies a model directory with its parameters in float16, one safetensors file a component: half the size, and files that
can be handed on. `tooncrafter sample --model` and `tooncrafter train --config.start` read the copy like any other model
directory.

  tooncrafter compact runs/small/sketch/export small --provenance=about.json
  tooncrafter compact runs/small/sketch/export small --take=decoder=runs/small/decoder/export
"""


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser("tooncrafter compact", description=DESCRIPTION)
    parser.add_argument("source", type=Path, help="a directory that `tooncrafter convert` or `tooncrafter train` wrote")
    parser.add_argument("destination", type=Path, help="the directory to write")
    add_stored_dtype(parser.add_argument, DTYPES, DTYPES[0])
    parser.add_argument(
        "--provenance", type=Path, metavar="FILE", help="JSON that is added to the provenance in model.json"
    )
    parser.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="COMPONENT=DIR",
        help=f"take this component from another model directory, or add it ({' or '.join(OPTIONAL_COMPONENTS)}); may "
        "be given several times",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="store a sampling option that suits the model, e.g. guidance_scale=1.5; options on a command line win "
        "over it; "
        "may be given several times",
    )
    add_overwrite(parser.add_argument, "what the destination holds")
    return parser


def main(argv: list[str]) -> int:
    """Writes and reports; see `--help`."""
    arguments = build_parser().parse_args(argv)
    whole = Checkpoint(arguments.source)
    with interruption_note(f"{arguments.destination} is as it was before"):
        size = compact(
            whole,
            arguments.destination,
            dtype=arguments.stored_dtype,
            taken=_taken(arguments.take, whole),
            sampling=_options(arguments.option, whole),
            provenance=_read_json(arguments.provenance),
            overwrite=arguments.overwrite,
        )
    written = Checkpoint(arguments.destination).components
    print(f"{printable(arguments.destination)}: {', '.join(written)}; {size / 1e6:.1f} MB")
    return EXIT_OK


def _options(choices: list[str], whole: Checkpoint) -> dict[str, object]:
    """Sampling options of NAME=VALUE, checked together with those that the model has."""
    known, found = declared(SamplingOptions), {}
    for choice in choices:
        name, equals, value = choice.partition("=")
        if not equals:
            raise UserError(f"--option={choice} must be a name and a value, such as guidance_scale=1.5")
        found[name] = value_of(value, known.get(name))
    make_options({**whole.sampling, **found}).check(whole.config)
    return found


def _taken(choices: list[str], whole: Checkpoint) -> dict[str, Checkpoint]:
    """Component -> the other directory that it is taken from."""
    found = {}
    for choice in choices:
        name, _, directory = choice.partition("=")
        if name not in (*whole.components, *OPTIONAL_COMPONENTS) or not directory:
            raise UserError(
                f"--take={choice} must name a component and a directory, such as decoder=runs/decoder/export; "
                f"{whole.directory} holds {', '.join(whole.components)}, and {' or '.join(OPTIONAL_COMPONENTS)} can be "
                "added to any model"
            )
        found[name] = Checkpoint(Path(directory))
        found[name].require([name])
    return found


def _read_json(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f'{file} must hold an object, such as {{"data": "..."}}')
    return found
