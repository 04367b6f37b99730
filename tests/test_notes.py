"""Notes: where a sentence goes, and that it is said once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

from tooncrafter_jax.cli.common import run
from tooncrafter_jax.notes import Note, collected, heard_by, note, once, remark

SCRIPT = """\
import warnings
from tooncrafter_jax.notes import Note, note, once, remark

remark("not in doubt")
note("one line\\nof two")
with once():
    note("from inside")
    note("from inside")
warnings.simplefilter("ignore", Note)
note("never said")
"""


def test_without_a_listener_a_note_is_a_warning_that_points_at_the_caller_and_can_be_silenced(tmp_path):
    script = tmp_path / "script.py"  # a process of its own: type checks in tests put frames between
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=os.environ)
    notes = [line for line in done.stderr.splitlines() if "Note:" in line]
    assert notes == [f"{script}:5: Note: one line of two", f"{script}:7: Note: from inside"]


def test_the_same_sentence_passes_once():
    heard: list[str] = []
    with heard_by(heard.append), once():
        for sentence in ("a", "b", "a"):
            note(sentence)
        with once():
            note("a")
            note("c")
    assert heard == ["a", "b", "c"]


def test_collected_notes_are_said_to_nobody_else():
    heard: list[str] = []
    with heard_by(heard.append):
        with collected() as found:
            note("a")
            remark("a")
        remark("b")
    assert (found, heard) == (["a"], ["b"])


def test_a_listener_hears_its_own_thread_alone():
    heard: list[str] = []
    with heard_by(heard.append), warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        other = threading.Thread(target=note, args=("from elsewhere",))
        other.start()
        other.join()
    assert heard == []


def test_a_command_prints_each_note_once_on_stderr(capsys):
    def main(argv: list[str]) -> int:
        for sentence in argv:
            note(sentence)
        return 0

    assert run(main, ["first", "second", "first"]) == 0
    assert capsys.readouterr() == ("", "note: first\nnote: second\n")
