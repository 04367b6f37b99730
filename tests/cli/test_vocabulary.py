"""One name for one idea: what the options of all commands are called, and what they were called before."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from tests.cli.world import Command
from tooncrafter_jax.__main__ import COMMANDS, command
from tooncrafter_jax.cli import curate
from tooncrafter_jax.cli.common import HelpEntry, Parser
from tooncrafter_jax.cli.vocabulary import FORMER_NAMES, MEANINGS


def parsers() -> dict[str, Parser]:
    """Those of all commands and subcommands."""
    found = {name: command(name).build_parser() for name in COMMANDS if name != "curate"}
    return found | {f"curate {name}": sub.build_parser() for name, sub in curate.COMMANDS.items()}


def by_name() -> dict[str, list[HelpEntry]]:
    """Every option but --help, with what each command that has it tells of it."""
    options: dict[str, list[HelpEntry]] = defaultdict(list)
    for parser in parsers().values():
        for one in parser.described_options():
            options[one.name].append(one)
    del options["--help"]
    return options


def without_default(text: str) -> str:
    return re.sub(r" \(default: .*\)$| \[--.*\]", "", text)


def test_two_commands_never_use_one_name_in_two_ways() -> None:
    for name, entries in by_name().items():
        if len({without_default(one.text) for one in entries}) > 1:
            assert name in MEANINGS, f"{name} means several things: {sorted({one.text for one in entries})}"
        for one in entries:
            assert one.text.startswith(MEANINGS.get(name, "")), f"{name} is {one.text!r} somewhere"


def test_two_options_never_have_one_meaning() -> None:
    """But for a side of a clip, which is pixels either way."""
    seen: dict[str, str] = {}
    for name, entries in by_name().items():
        text = without_default(entries[0].text)
        assert seen.setdefault(text, name) == name or {name, seen[text]} == {"--height", "--width"}, text


def test_every_shared_meaning_is_that_of_an_option() -> None:
    assert set(MEANINGS) <= set(by_name())
    assert set(FORMER_NAMES.values()) <= set(by_name())


def test_every_command_calls_itself_by_its_name() -> None:
    for name, parser in parsers().items():
        assert parser.prog == f"tooncrafter {name}" and "python -m" not in parser.format_help()
        assert f"  tooncrafter {name} " in parser.format_help() or name == "verify"


FORMER = {
    "evaluate": {"--batch": "--batch-size", "--clip": "--clip-weights", "--restart": "--overwrite"},
    "convert": {"--preset": "--architecture", "--config": "--architecture", "--dtype": "--stored-dtype"},
    "compact": {"--dtype": "--stored-dtype"},
    "fetch-metric-weights": {"--cache": "--metric-weights"},
    "curate films": {"--clip": "--clip-weights"},
    "curate embed": {"--batch": "--batch-size", "--stored": "--stored-dtype"},
}


@pytest.mark.parametrize(
    ("name", "old", "new"), [(name, old, new) for name, of in FORMER.items() for old, new in of.items()]
)
def test_a_former_name_leads_to_the_new_one(name: str, old: str, new: str, command: Command) -> None:
    for argv in ([f"{old}=x"], [old, "x"], ["a", "b", old, "x"]):
        result = command(*name.split(), *argv)
        assert result.code == 2
        assert result.err == f"error: '{old}' is called {new} now (see tooncrafter {name} --help)\n"
