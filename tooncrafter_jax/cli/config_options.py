"""The options that `train` and `plan` share: a config file, and changes to its values."""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.vocabulary import add_shared
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import any_path, copy_file, url_of
from tooncrafter_jax.training import former_keys
from tooncrafter_jax.training.configuration import train_config
from tooncrafter_jax.training.run_config import TrainConfig


def add_config(parser: Parser) -> None:
    """The option --config."""
    more = ", see configs/; any value of it is changed by --config.KEY=VALUE"
    add_shared(parser.add_argument, "--config", more, required=True, metavar="FILE[:VARIANT]")


def parse_with_config(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, TrainConfig]:
    """The arguments, and the config that they name with its `--config.KEY=VALUE` changes.

    Raises:
      UserError: an argument is wrong, or the config cannot be used.
    """
    overrides = [arg for arg in argv if arg.startswith("--config.")]
    for arg, value in pairwise(argv):
        if arg in overrides and "=" not in arg and not value.startswith("-"):
            raise UserError(f"the value of {arg} is to stand behind '=': write {arg}={value}")
    arguments = parser.parse_args([arg for arg in argv if arg not in overrides])
    return arguments, read_config(arguments.config, overrides)


def read_config(file: str, overrides: list[str]) -> TrainConfig:
    """The config of a file such as `configs/x.py` or `configs/x.py:variant`, with `--config.KEY=VALUE` changes.

    Raises:
      UserError: the file is missing or broken, or a key or value is wrong.
    """
    with _on_this_machine(file) as local:
        return _read_config(file, local, overrides)


@contextlib.contextmanager
def _on_this_machine(file: str) -> Iterator[str]:
    """The name, with its variant, of a config file on this machine: a copy, if the file is in a bucket.

    Raises:
      UserError: there is no such file.
    """
    url, variant = re.fullmatch(r"(\w+://[^:]*|[^:]*)(.*)", file, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    path = any_path(url) if url_of(url) else Path(url)
    if not path.is_file():
        raise UserError(f"there is no config file '{url}'")
    if isinstance(path, Path):
        yield f"{path}{variant}"
        return
    with tempfile.TemporaryDirectory(prefix="tooncrafter-") as folder:
        copy_file(path, Path(folder) / path.name)
        yield f"{Path(folder) / path.name}{variant}"


def _read_config(file: str, local: str, overrides: list[str]) -> TrainConfig:
    values = flags.FlagValues()
    line = ["tooncrafter train", f"--config={local}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=line)
    try:
        values(line)
        config: Any = values["config"].value
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, SyntaxError, ImportError) as error:
        changes = f" with {' '.join(overrides)}" if overrides else ""
        reason = _reason(error)
        moved = filter(None, (former_keys.advice(key) for key in [*_keys(overrides), *re.findall(r"'(\w+)'", reason)]))
        raise UserError(f"the config '{file}'{changes} cannot be used: {next(moved, reason)}") from error
    return train_config(config.to_dict())


def _keys(overrides: Sequence[str]) -> list[str]:
    """The keys of `--config.KEY=VALUE`."""
    return [override.removeprefix("--config.").partition("=")[0] for override in overrides]


def _reason(error: BaseException) -> str:
    """One line about what went wrong; of an error inside a config file, that one, which the library reports as a
    traceback.
    """
    where = ""
    if "Traceback" in str(error):
        while error.__context__ is not None:
            error = error.__context__
        if not isinstance(error, ValueError):  # which is what a config raises for a variant that it lacks
            origin = traceback.extract_tb(error.__traceback__)[-1]
            where = f" ({origin.filename}, line {origin.lineno})"
    message: object = error  # which may hold another, whose text would be quoted once more each time
    while isinstance(message, AttributeError | KeyError) and message.args:
        message = message.args[0]
    return " ".join(str(message).split()) + where
