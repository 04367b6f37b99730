"""The one program with all commands."""

from __future__ import annotations

import pytest

from tooncrafter_jax import __version__
from tooncrafter_jax.__main__ import COMMANDS, GROUPS, command, main
from tooncrafter_jax.cli.common import EXIT_OK, EXIT_USAGE
from tooncrafter_jax.errors import UserError


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == EXIT_OK
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in listed
        assert callable(command(name).main)
    for title, commands in GROUPS.items():
        assert f"\n{title}:\n  {next(iter(commands))} " in listed


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == EXIT_OK
    assert capsys.readouterr().out == f"tooncrafter {__version__}\n"


def test_without_a_command_the_list_is_an_error() -> None:
    assert main([]) == EXIT_USAGE
    with pytest.raises(
        UserError, match="unknown command 'sampel': did you mean sample\\? choose one of sample, convert"
    ):
        main(["sampel"])
    with pytest.raises(UserError, match="unknown command 'x': choose one of sample, convert"):
        main(["x"])
