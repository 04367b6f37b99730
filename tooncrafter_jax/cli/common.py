"""What all commands share: how they read their options, and how they end."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from tooncrafter_jax import notes
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.paths import local_path
from tooncrafter_jax.sampling.foreign_names import flag_advice

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `UserError`s, and which never guesses what an abbreviation stands for."""

    def __init__(self, prog: str, **settings: object) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, allow_abbrev=False, **settings)  # pyright: ignore[reportArgumentType]
        self.register("type", Path, local_path)  # of a URL, `Path` would make a folder named "gs:"

    def parse_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """As argparse does, naming the nearest option for an unknown one."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            given = unknown[0].partition("=")[0]
            if (advice := flag_advice(given, known)) is not None:
                self.error(f"unknown argument '{unknown[0]}', {advice}")
            near = difflib.get_close_matches(given, known, n=1) if given.startswith("-") else []
            self.error(f"unknown argument '{unknown[0]}'" + (f", did you mean {near[0]}?" if near else ""))
        return arguments

    def given(self, args: Sequence[str]) -> set[str]:
        """Names of the options that these arguments set; the others have their defaults."""
        defaults = [(action, action.default) for action in self._actions]
        try:
            for action in self._actions:
                action.default = argparse.SUPPRESS
            return set(vars(self.parse_known_args(list(args))[0]))
        finally:
            for action, default in defaults:
                action.default = default

    def error(self, message: str) -> NoReturn:
        """Raises the complaint as a `UserError`."""
        raise UserError(f"{' '.join(message.split())} (see {self.prog} --help)")


def add_hosts(parser: Parser) -> None:
    """The options --coordinator, --num-processes and --process-id, which `distributed.initialize` takes."""
    add = parser.add_argument_group("on several hosts, each of which runs the same command").add_argument
    add(
        "--coordinator",
        metavar="HOST:PORT",
        help="of the first process; found by itself on TPU, with Slurm, Open MPI and Kubernetes",
    )
    add("--num-processes", type=int, metavar="N", help="with --coordinator: how many; 1 alone: no others")
    add("--process-id", type=int, metavar="N", help="with --coordinator: which one this is")


def add_compilation_cache(parser: Parser) -> None:
    """The option --compilation-cache, which `compilation_cache.enable_compilation_cache` takes."""
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="where compiled programs are kept for the next run: on several hosts a directory that all of them share, also "
        "gs://... (default: $JAX_COMPILATION_CACHE_DIR, else ~/.cache/tooncrafter_jax/xla)",
    )


def run(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Runs a command's main: a `UserError` becomes one line and exit code 2, Ctrl-C a line and 130; a note, a line on stderr.

    Args:
      main: takes the arguments and returns the exit code.
      argv: the arguments; those of the process by default.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be text that the terminal can show
    try:
        with notes.heard_by(print_note), notes.once():
            code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        print(f"\ninterrupted{': ' if str(error) else ''}{error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # keeps the interpreter's own flush quiet
        return EXIT_FAILED


@contextlib.contextmanager
def told_if_interrupted(what_is_left: str) -> Iterator[None]:
    """Ctrl-C inside says what the command leaves behind, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(what_is_left) from error


def print_note(sentence: str) -> None:
    """Prints a note on stderr, above a progress bar if there is one; of several processes only the main one does."""
    jax = sys.modules.get("jax")  # a command that has not loaded it runs alone
    if jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0:
        tqdm.write(f"note: {one_line(sentence)}", file=sys.stderr)


def one_line(error: Exception | str) -> str:
    """A message without line breaks, which a prompt or a file name in it may bring, and safe to print."""
    return printable(" ".join(str(error).splitlines()))
