"""What the terminal shows of a list of clips."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tooncrafter_jax.cli import batch_report
from tooncrafter_jax.cli.batch_report import Terminal, report
from tooncrafter_jax.sampling.batch.jobs import Job
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.run_request import BatchResult
from tooncrafter_jax.sampling.request import Pair

JOBS = [Job(f"fox_{number}", Pair("a.png", "b.png")) for number in range(3)]


class Screen(io.StringIO):
    """A terminal, or a file."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(
    ("is_terminal", "quiet", "main", "shown"),
    [(True, False, True, True), (False, False, True, False), (True, True, True, False), (True, False, False, False)],
    ids=["terminal", "file", "quiet", "another process"],
)
def test_a_list_is_looked_through_below_a_bar(
    is_terminal: bool, quiet: bool, main: bool, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar counts the clips and leaves nothing behind; without one every clip is looked at all the same."""
    screen = Screen(is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(batch_report, "is_main_process", lambda: main)
    terminal = Terminal(OutputPlan(tmp_path, ("mp4",)), several=True, quiet=quiet)
    assert list(terminal.looking(JOBS)) == JOBS
    text = screen.getvalue()
    assert ("looking for clips that are done:   0%" in text and "/3" in text) is shown
    assert not text.rpartition("\r")[2].strip() and (shown or not text)


@pytest.mark.parametrize("main", [True, False])
def test_the_main_process_alone_tells_what_is_made(main: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(is_terminal=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(batch_report, "is_main_process", lambda: main)
    Terminal(OutputPlan(tmp_path, ("mp4",)), several=True, quiet=False).made("fox", BatchResult(1, made=["fox"]), 2.0)
    assert screen.getvalue() == ("1/1 fox: 2.0 s\n" if main else "")


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (BatchResult(1, made=["fox"]), ""),
        (BatchResult(1, skipped=["fox"]), "fox: done before\n"),
        (BatchResult(1, elsewhere=["fox"]), "fox: made by another run\n"),
    ],
)
def test_the_files_of_a_single_clip_are_named_whoever_made_it(
    result: BatchResult, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(result, OutputPlan(tmp_path, ("mp4",)), several=False) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'fox.mp4'}\n{tmp_path / 'fox.json'}\n" and shown.err == said
