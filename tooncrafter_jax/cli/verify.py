"""`tooncrafter verify DIR`: compares every component with reference numbers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK, Parser, check_json
from tooncrafter_jax.cli.vocabulary import add_compilation_cache, add_dtype, add_json, add_quiet
from tooncrafter_jax.errors import printable
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache

DESCRIPTION = """\
Runs every component of this package on a folder of reference numbers of the published code and compares all arrays.
Errors are relative to the standard deviation of each array; whole numbers and texts must be equal.
Exits 0 if all are within tolerance, 1 if one is not, 2 if the folder is broken."""


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: arguments after the command's name.

    Returns:
      0 if every array is within its tolerance, 1 if not.

    Raises:
      UserError: if the folder is broken, nothing in it is asked for, or the JSON file cannot be written; the last is
        found out before anything is computed.
    """
    args = build_parser().parse_args(argv)
    check_json(args.json, ("folder", "passed", "rows"))
    enable_compilation_cache(args.compilation_cache)
    return _verify(args)


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser("tooncrafter verify", description=DESCRIPTION)
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="folder with manifest.json, config.json and .npz files"
    )
    add_dtype(parser.add_argument, default="float32")
    parser.add_argument("--only", metavar="PATTERN", help="compare only files, arrays, cases or operations like this")
    add_json(parser.add_argument)
    add_quiet(parser.add_argument)
    add_compilation_cache(parser.add_argument)
    return parser


def _verify(args: argparse.Namespace) -> int:
    from tooncrafter_jax.verification.folder import Folder
    from tooncrafter_jax.verification.report import as_json, summary, table
    from tooncrafter_jax.verification.run import verify

    folder = Folder(args.folder)
    done = 0

    def show(case: str, seconds: float) -> None:
        nonlocal done
        done += 1
        print(f"[{done}/{len(folder.cases)}] {printable(case)}: {seconds:.1f} s", file=sys.stderr, flush=True)

    rows = verify(folder, dtype=args.dtype, only=args.only, on_case=None if args.quiet else show)
    for line in table(rows):
        print(line)
    print()
    for line in summary(folder, rows):
        print(line)
    if args.json is not None:
        write_atomically(args.json, (as_json(folder, rows) + "\n").encode())
    return EXIT_FAILED if any(row.verdict == "FAIL" for row in rows) else EXIT_OK
