"""Options of the command line that are made from those that a class declares (`tooncrafter_jax.options`)."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tooncrafter_jax.cli.vocabulary import Add
from tooncrafter_jax.options import Declared, declared

_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "FILE"}


def add_declared(add: Add, cls: type, names: Iterable[str] | None = None) -> None:
    """Adds options to a command.

    One that is not given is absent from the parsed arguments, so that a model's own default can take its place;
    `given_options` reads them. A switch has two forms, `--NAME` and `--no-NAME`, as a model's own default may be
    either. Names in [brackets] are those of the published script's options.

    Args:
      add: `add_argument` of a parser or of a group.
      cls: the dataclass or named tuple.
      names: the options of it, in this order; all that are not of Python alone by default.
    """
    options = declared(cls)
    for name in options if names is None else names:
        one = options[name]
        if names is None and one.option.of_python:
            continue
        add(flag_of(one), dest=name, default=argparse.SUPPRESS, help=_help(one), **_taken(one))


def given_options(arguments: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The options of a class that were given, by name."""
    return {name: getattr(arguments, name) for name in declared(cls) if hasattr(arguments, name)}


def flag_of(option: Declared) -> str:
    """How the command line calls an option; of a switch, the form that turns it on."""
    return f"--{option.name.replace('_', '-')}"


def _taken(option: Declared) -> Mapping[str, object]:
    """What argparse is to take for an option."""
    if option.kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    taken = {"type": option.kind, "metavar": option.option.metavar or _METAVARS[option.kind]}
    return taken | {"metavar": "NAME", "choices": option.choices} if option.choices else taken


def _help(option: Declared) -> str:
    published = f" [{option.option.published}]" if option.option.published else ""
    default = option.default_text
    return f"{option.description}{published}" + (f" (default: {default})" if default else "")
