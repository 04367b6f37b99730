"""Folders and manifests: which pictures belong together, which file holds the prompts, and what clips are called."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import Command, World, draw, write_folder

LONG = "歩" * 83
"""249 bytes of UTF-8: with an ending the longest name that a picture can have."""


@pytest.fixture
def empty(world: World) -> World:
    for path in world.out.iterdir():
        path.unlink()
    return world


def request(world: World, name: str) -> dict[str, Any]:
    return json.loads((world.out / f"{name}.json").read_text(encoding="utf-8"))["request"]


def pairs(world: World) -> set[tuple[str, str]]:
    found = (json.loads(path.read_text())["request"] for path in world.out.glob("*.json"))
    return {(Path(r["first"]["path"]).name, Path(r["last"]["path"]).name) for r in found}


# --- folders ---


def numbered_folder(world: World) -> Path:
    folder = world.path / "numbered"
    folder.mkdir()
    (folder / "prompts.txt").write_text("".join(f"prompt {i}\n" for i in range(6)))
    for number in range(1, 13):
        draw(folder / f"{number}.png", 10 * number)
    return folder


def shown(world: World, folder: Path, *changes: str) -> list[str]:
    """Arguments without --quiet."""
    return [argument for argument in world.folder(folder, *changes) if argument != "--quiet"]


def test_numbers_in_names_count_as_numbers_and_it_is_said(empty: World, command: Command):
    result = command("sample", *shown(empty, numbered_folder(empty)))
    assert result.code == 0
    assert pairs(empty) == {(f"{i}.png", f"{i + 1}.png") for i in range(1, 13, 2)}
    notes = [line for line in result.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "taken as numbers: '2.png' comes before '10.png'" in notes[0] and "--order=text" in notes[0]
    assert "9.png -> 10.png: prompt 4" in result.err.splitlines()


def test_the_order_of_the_published_script_can_be_had(empty: World, command: Command):
    result = command("sample", *shown(empty, numbered_folder(empty), "--order=text"))
    assert pairs(empty) == {(f"{a}.png", f"{b}.png") for a, b in [(1, 10), (11, 12), (2, 3), (4, 5), (6, 7), (8, 9)]}
    assert "taken as text: '10.png' comes before '2.png'" in result.err and "--order=numbers" in result.err


def test_where_both_orders_agree_nothing_is_said(empty: World, command: Command):
    result = command("sample", *shown(empty, write_folder(empty.path / "folder", 2)))
    assert "note: " not in result.err and "0_a.png -> 0_b.png: prompt 0" in result.err


def test_the_order_is_that_of_a_folder(world: World, command: Command):
    result = command("sample", *world.pair("--order=text"))
    assert result.code == 2 and "--order" in result.err and "--folder" in result.err


def test_prompts_txt_holds_the_prompts_where_there_are_other_texts(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    (folder / "credits.txt").write_text("drawn by\nsomebody\n")
    result = command("sample", *empty.folder(folder))
    assert result.code == 0 and "those of prompts.txt; credits.txt is not read" in result.err
    assert request(empty, "0_a")["prompt"] == "prompt 0"


def test_which_of_several_texts_holds_the_prompts_is_not_guessed(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    (folder / "prompts.txt").rename(folder / "prompts_v2.txt")
    (folder / "credits.txt").write_text("drawn by\nsomebody\n")
    result = command("sample", *empty.folder(folder))
    assert result.code == 2 and not empty.model.batches
    assert "2 text files (credits.txt, prompts_v2.txt)" in result.err and "prompts.txt" in result.err


def test_a_prompt_is_a_line_whatever_else_separates_lines(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    (folder / "prompts.txt").write_text("one\u2028still one\ntwo\x85still two\x0b\n", encoding="utf-8")
    assert command("sample", *empty.folder(folder)).code == 0
    assert request(empty, "0_a")["prompt"] == "one\u2028still one"


# --- manifests ---

GOOD = {"first": "first.png", "last": "last.png"}


def test_separators_that_json_allows_in_text_end_no_line(empty: World, command: Command):
    prompt = "a\u2028b\u2029c\x85d"
    line = json.dumps({**GOOD, "prompt": prompt}, ensure_ascii=False)
    (empty.path / "shots.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    result = command("sample", f"--manifest={empty.path / 'shots.jsonl'}", f"--out={empty.out}", *empty.common)
    assert result.code == 0, result.err
    assert request(empty, "first_2")["prompt"] == prompt


@pytest.mark.parametrize(
    ("first", "phrase"),
    [
        ("C:\\drawings\\cat.png", "C:\\drawings\\cat.png' does not exist"),
        ("x" * 300 + ".png", "File name too long"),
        (LONG + ".png", "does not exist"),
        ("a\0b.png", "cannot be read"),
        ("a\x1b[2J.png", "a\\x1b[2J.png' does not exist"),
        ("\ud800.png", "\\ud800.png' cannot be read"),
    ],
    ids="windows too-long long nul escape surrogate".split(),
)
def test_a_path_that_makes_no_name_costs_its_line_alone(first: str, phrase: str, empty: World, command: Command):
    result = command("sample", *empty.manifest({**GOOD, "first": first}, GOOD))
    assert result.code == 1 and "1 made, 0 done before, 1 failed" in result.out
    assert len(result.errors) == 1 and phrase in result.err and "has the name" not in result.err


@pytest.mark.parametrize(
    "line",
    [
        {**GOOD, "draft": "x\0"},
        {"references": ["first.png"], "sketches": "x\0"},
        {"keys": "x\0"},
    ],
    ids="draft sketches keys".split(),
)
def test_a_folder_that_cannot_be_is_refused_in_a_sentence(line: dict[str, Any], empty: World, command: Command):
    result = command("sample", *empty.manifest(line))
    assert result.code == 2 and len(result.errors) == 1
    assert "cannot read the folder" in result.err and "null" in result.err


# --- names ---


@pytest.mark.parametrize("changes", [[], ["--samples-per-pair=2"], ["--contact-sheet", "--format=webp,png"]])
def test_names_that_are_too_long_are_shortened_before_sampling(changes: list[str], empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    stems = ["x" * 251, LONG]
    for number, stem in enumerate(stems):
        (folder / f"{number}_a.png").rename(folder / f"{stem}.png")
        (folder / f"{number}_b.png").rename(folder / f"{stem[:-1]}y.png")
    argv = empty.folder(folder, *changes)
    result = command("sample", *argv)
    count = 4 if "--samples-per-pair=2" in changes else 2
    assert result.code == 0 and f"{count} made" in result.out, result.err
    names = [path.name for path in empty.out.iterdir()]
    assert all(len(os.fsencode(name)) <= 255 for name in names)
    assert len([name for name in names if name.startswith("x" * 200)]) == len(names) / 2
    result = command("sample", *argv)
    assert result.code == 0 and f"{count} done before" in result.out
    assert sorted(path.name for path in empty.out.iterdir()) == sorted(names)


def test_names_that_differ_only_at_their_ends_stay_apart(empty: World, command: Command):
    for ending in ("one", "two"):
        draw(empty.path / f"{'x' * 245}{ending}.png")
    lines = [{**GOOD, "first": f"{'x' * 245}{ending}.png"} for ending in ("one", "two", "one")]
    assert command("sample", *empty.manifest(*lines)).code == 0
    assert len(list(empty.out.glob("*.mp4"))) == 3


def test_a_name_that_fits_is_not_shortened(empty: World, command: Command):
    """So that what was made before is found again."""
    draw(empty.path / f"{'x' * 250}.png")
    assert command("sample", *empty.manifest({**GOOD, "first": f"{'x' * 250}.png"})).code == 0
    assert (empty.out / f"{'x' * 250}.mp4").is_file()
