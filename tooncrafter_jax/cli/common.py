"""What all commands share: how they read their options, and how they end."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from tqdm import tqdm

from tooncrafter_jax import notes
from tooncrafter_jax.cli.vocabulary import renamed
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.sampling.foreign_names import flag_advice

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class HelpEntry(NamedTuple):
    """An option as a command's help describes it.

    Attributes:
      group: its title.
      name: with its dashes.
      opposite: the form that turns a switch off; empty where there is none.
      metavar: what stands for its value; empty for a switch.
      text: what it does.
    """

    group: str
    name: str
    opposite: str
    metavar: str
    text: str


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `UserError`s, and which never guesses what an abbreviation stands for."""

    def __init__(self, prog: str, **settings: object) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, allow_abbrev=False, **settings)  # pyright: ignore[reportArgumentType]
        self.register("type", Path, _path)  # of a URL, `Path` would make a folder named "gs:"

    def parse_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """As argparse does, naming the nearest option for an unknown one, and the new name of an option that had
        another.
        """
        known = [name for action in self._actions for name in action.option_strings]
        if (sentence := renamed(sys.argv[1:] if args is None else args, known)) is not None:
            self.error(sentence)
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            given = unknown[0].partition("=")[0]
            if (advice := flag_advice(given, known, self._published())) is not None:
                self.error(f"unknown argument '{unknown[0]}', {advice}")
            near = difflib.get_close_matches(given, known, n=1) if given.startswith("-") else []
            self.error(f"unknown argument '{unknown[0]}'" + (f", did you mean {near[0]}?" if near else ""))
        return arguments

    def described_options(self) -> list[HelpEntry]:
        """The options in the order of the help. argparse has no public way to ask for them."""
        return [
            HelpEntry(group.title or "", *_long_names(action), self._metavar(action), self._text(action))
            for group in self._action_groups
            for action in group._group_actions  # noqa: SLF001
            if action.option_strings and action.help
        ]

    def _metavar(self, action: argparse.Action) -> str:
        return "" if action.nargs == 0 else str(action.metavar or action.dest.upper())

    def _text(self, action: argparse.Action) -> str:
        return self._get_formatter()._expand_help(action)  # noqa: SLF001

    def _published(self) -> dict[str, str]:
        """The published script's options, which stand in [brackets] in the help -> ours."""
        return {
            name: one.name
            for one in self.described_options()
            for names in re.findall(r"\[(--[^]]+)\]", one.text)
            for name in names.split()
        }

    def error(self, message: str) -> NoReturn:
        """Raises the complaint as a `UserError`."""
        raise UserError(f"{' '.join(message.split())} (see {self.prog} --help)")


def _long_names(action: argparse.Action) -> tuple[str, str]:
    """The name of an option, and of a switch that can be turned off the form that does so."""
    names = [name for name in action.option_strings if name.startswith("--")]
    return names[0], names[1] if isinstance(action, argparse.BooleanOptionalAction) else ""


def _path(text: str) -> Path:
    """As `io.paths.local_path`, which is loaded when a path is given."""
    from tooncrafter_jax.io.paths import local_path

    return local_path(text)


def run(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Runs a command's main: a `UserError` becomes one line and exit code 2, Ctrl-C a line and 130; a note, a line on
    stderr.

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
        return _failed(EXIT_USAGE)
    except KeyboardInterrupt as error:
        print(f"\ninterrupted{': ' if str(error) else ''}{error}", file=sys.stderr)
        return _failed(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # keeps the interpreter's own flush quiet
        return EXIT_FAILED
    except Exception:
        _failed(EXIT_FAILED)
        raise


def _failed(code: int) -> int:
    """The exit code of a process that ends by an error, alone among several perhaps."""
    if "jax" in sys.modules:
        from tooncrafter_jax.runtime.distributed import end_soon

        end_soon(code)
    return code


@contextlib.contextmanager
def interruption_note(what_is_left: str) -> Iterator[None]:
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


def check_json(path: Path | None, keys: Iterable[str]) -> None:
    """Finds out whether --json can be written, before anything is computed.

    Args:
      path: the file; None: it is not asked for.
      keys: what every object that is written there has.

    Raises:
      UserError: it is a directory, cannot be written, or holds something else.
    """
    from tooncrafter_jax.io.atomic_files import check_writable
    from tooncrafter_jax.io.owned_files import check_json_is_ours

    if path is None:
        return
    if path.is_dir():
        raise UserError(f"--json={path} is a directory: name the file, e.g. --json={path / 'result.json'}")
    check_writable(path.parent)
    check_json_is_ours(path, keys)


def one_line(error: Exception | str) -> str:
    """A message without line breaks, which a prompt or a file name in it may bring, and safe to print."""
    return printable(" ".join(str(error).splitlines()))
