"""The program `tooncrafter COMMAND ...`, which `python -m tooncrafter_jax` is too."""

from __future__ import annotations

import importlib
import sys

from tooncrafter_jax.cli.common import EXIT_OK, EXIT_USAGE, run
from tooncrafter_jax.errors import UserError

COMMANDS = {
    "sample": "two drawings, or many pairs of them -> videos",
    "train": "any stage of a model, from a config file",
    "convert": "published weight files -> a checkpoint directory",
    "verify": "compare every component with reference numbers",
    "compact": "a checkpoint directory -> one of 16-bit safetensors files, to hand on",
    "curate": "films, animated emoji or rendered bodies -> sets of clips to train on",
    "evaluate": "models and rivals against the true clips of a set: tables, plots, pictures",
    "plan": "what a training or sampling step takes on a machine that need not be there",
    "fetch-metric-weights": "the published weights that quality is measured with",
}


def main(argv: list[str]) -> int:
    """Dispatches to a command; each is imported only when it is called.

    Raises:
      UserError: there is no such command, or what the command raises.
    """
    if argv == ["--version"]:
        from tooncrafter_jax import __version__

        print(f"tooncrafter {__version__}")
        return EXIT_OK
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: tooncrafter COMMAND [--help] ...\n")
        for name, purpose in COMMANDS.items():
            print(f"  {name:20} {purpose}")
        return EXIT_OK if argv else EXIT_USAGE
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command '{argv[0]}': choose one of {', '.join(COMMANDS)}")
    return importlib.import_module(f"tooncrafter_jax.cli.{argv[0].replace('-', '_')}").main(argv[1:])


def program() -> int:
    """What the installed command `tooncrafter` runs; its exit code."""
    return run(main)


if __name__ == "__main__":
    sys.exit(program())
