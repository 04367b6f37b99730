"""What all commands share: how they end, and how they name their options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tooncrafter_jax.errors import UserError

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def run(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Runs a command's main: a `UserError` becomes one line and exit code 2, Ctrl-C a line and 130.

    Args:
      main: takes the arguments and returns the exit code.
      argv: the arguments; those of the process by default.
    """
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # keeps the interpreter's own flush quiet
        return EXIT_FAILED
