"""The one program with all commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tooncrafter_jax
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
        UserError, match="unknown command 'sampel': did you mean sample\\? choose one of sample, app, convert"
    ):
        main(["sampel"])
    with pytest.raises(UserError, match="unknown command 'x': choose one of sample, app, convert"):
        main(["x"])


def test_the_list_of_commands_does_not_wait_for_jax() -> None:
    program = "import sys; from tooncrafter_jax.__main__ import main; main(['--help']); assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_public_names_are_loaded_when_they_are_used() -> None:
    assert dir(tooncrafter_jax) == sorted(tooncrafter_jax.__all__)
    for name in tooncrafter_jax.__all__:
        assert getattr(tooncrafter_jax, name) is not None
    assert tooncrafter_jax.load == tooncrafter_jax.ToonCrafter.load
    with pytest.raises(AttributeError, match="has no attribute 'Tooncrafter'"):
        _ = tooncrafter_jax.Tooncrafter  # pyright: ignore[reportAttributeAccessIssue]
