"""The program `tooncrafter COMMAND ...`, which `python -m tooncrafter_jax COMMAND ...` is too."""

from __future__ import annotations

import difflib
import importlib
import sys
from types import ModuleType

from tooncrafter_jax.cli.common import EXIT_OK, EXIT_USAGE, run
from tooncrafter_jax.errors import UserError

GROUPS = {
    "draw": {
        "sample": "two drawings, or many pairs of them -> videos",
        "app": "a server that draws for others: jobs, an HTTP API",
    },
    "models": {
        "convert": "published weight files -> a checkpoint directory",
        "fetch": "a published model of the Hugging Face hub -> a checkpoint directory",
        "compact": "a checkpoint directory -> one of 16-bit safetensors files, to hand on",
        "verify": "compare every component with reference numbers",
    },
    "training": {
        "curate": "films, animated emoji or rendered bodies -> sets of clips to train on",
        "train": "any stage of a model, from a config file",
        "plan": "what a training or sampling step takes on a machine that need not be there",
    },
    "quality": {
        "evaluate": "models and rivals against the true clips of a set: tables, plots, pictures",
        "fetch-metric-weights": "the published weights that quality is measured with",
    },
}
"""What a command is for -> its name -> what it does."""
COMMANDS = {name: purpose for group in GROUPS.values() for name, purpose in group.items()}


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
        print("usage: tooncrafter COMMAND [--help] ...\n       tooncrafter --version")
        for title, commands in GROUPS.items():
            print(f"\n{title}:")
            for name, purpose in commands.items():
                print(f"  {name:20} {purpose}")
        return EXIT_OK if argv else EXIT_USAGE
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}? choose" if near else "choose"
        raise UserError(f"unknown command '{argv[0]}': {hint} one of {', '.join(COMMANDS)}")
    return command(argv[0]).main(argv[1:])


def command(name: str) -> ModuleType:
    """The module of a command, with its `main`."""
    return importlib.import_module(f"tooncrafter_jax.cli.{name.replace('-', '_')}")


def program() -> int:
    """What the installed command `tooncrafter` runs; its exit code."""
    return run(main)


if __name__ == "__main__":
    sys.exit(program())
