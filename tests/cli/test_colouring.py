"""Sketches of a whole clip, coloured by one or two references."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.test_decisions import notes
from tests.cli.world import Command, World, draw_lines


def draw_sketches(world: World, count: int = 16, blank: int | None = 3) -> None:
    (world.path / "lines").mkdir()
    for number in range(count):
        draw_lines(world.path / "lines" / f"s{number + 1}.png", ink=255 if number == blank else 0)


def colouring(world: World, *changes: str) -> list[str]:
    return [
        f"--reference={world.path / 'first.png'}",
        f"--sketches={world.path / 'lines'}",
        f"--out={world.out / 'ab.mp4'}",
        *world.common,
        *changes,
    ]


@pytest.mark.parametrize("both", [False, True])
def test_sketches_of_all_frames_are_coloured(empty: World, command: Command, both: bool):
    draw_sketches(empty)
    more = [f"--reference={empty.path / 'last.png'}"] if both else []
    result = command("sample", *colouring(empty, *more))
    assert result.code == 0, result.err
    assert empty.written == {"ab.mp4", "ab.json"}
    request = empty.record()["request"]
    assert len(request["sketches"]) == 16 and request["sketches"]["9"]["path"].endswith("s10.png")
    assert (request["last"] is not None) == both
    told = notes(result.err)
    assert "the sketches for frames 3 are blank: nothing guides these" in told
    assert sum("dark lines on bright paper" in line for line in told) == 1


def test_lines_of_a_manifest_name_references_and_a_folder(empty: World, command: Command):
    draw_sketches(empty, blank=None)
    lines = [
        {"references": ["first.png"], "sketches": "lines", "name": "one"},
        {"references": ["first.png", "last.png"], "sketches": "lines", "name": "two", "seed": 7},
        {"first": "first.png", "last": "last.png", "name": "pair"},
    ]
    argv = empty.manifest(*lines, changes=["--format=gif"])
    assert "3 made" in command("sample", *argv).out
    assert "3 done before" in command("sample", *argv).out
    assert empty.record("one")["request"]["last"] is None and empty.record("two")["request"]["seed"] == 7


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"references": ["first.png"]}, "line 2 .* needs sketches: a folder"),
        ({"references": 3, "sketches": "lines"}, "line 2 .* references = 3"),
        ({"references": [], "sketches": "lines"}, "there are 0 references: give one"),
        ({"references": ["first.png"], "last": "last.png", "sketches": "lines"}, "references and 'last'"),
        ({"references": ["first.png"], "sketches": "gone"}, "cannot read the folder .*gone"),
    ],
)
def test_a_line_that_cannot_be_is_named(empty: World, command: Command, entry: dict[str, object], words: str):
    draw_sketches(empty)
    result = command("sample", *empty.manifest({"first": "first.png", "last": "last.png"}, json.dumps(entry)))
    assert result.code == 2 and re.search(words, result.err) and len(result.errors) == 1


@pytest.mark.parametrize(
    ("count", "changes", "words"),
    [
        (15, [], "15 sketches for the 16 frames of the clip"),
        (16, ["--frames=8"], "16 sketches for the 8 frames"),
        (16, ["--last=PATH/last.png"], "--last goes with --first"),
        (16, ["--loop"], "--loop goes with --first"),
        (16, ["--sketch=7:PATH/first.png"], "--sketch goes with --first"),
        (16, ["--reference=PATH/last.png", "--reference=PATH/last.png"], "there are 3 references"),
        (16, ["--sketches=PATH/gone"], "cannot read the folder"),
        (16, ["--first=PATH/first.png"], "not --first and --reference together"),
    ],
)
def test_what_cannot_be_coloured_is_one_sentence(
    empty: World, command: Command, count: int, changes: list[str], words: str
):
    draw_sketches(empty, count)
    changes = [change.replace("PATH", str(empty.path)) for change in changes]
    result = command("sample", *colouring(empty, *changes))
    assert result.code == 2 and words in result.err and len(result.errors) == 1, result.err
    assert not empty.model.batches and empty.written == set()


def test_sketches_without_a_reference_and_the_other_way_round(empty: World, command: Command):
    draw_sketches(empty)
    result = command("sample", *empty.pair(f"--sketches={empty.path / 'lines'}"))
    assert result.code == 2 and "--sketches goes with --reference" in result.err
    result = command("sample", *colouring(empty)[:1], *colouring(empty)[2:])
    assert result.code == 2 and "--reference needs --sketches" in result.err
