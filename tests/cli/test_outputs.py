"""What sampling writes: no file of anybody else's is replaced or deleted, and what is damaged is made again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.world import Command, World, draw, link_checkpoint, write_folder
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import read_image
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.records import read_record


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def empty(world: World) -> World:
    for path in world.out.iterdir():
        path.unlink()
    return world


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3)).astype(np.uint8)


RECORD: dict[str, Any] = {"format": 2, "request": {"prompt": "a", "options": {}}, "made_by": {}}


# --- files of somebody else ---


def folder_of_frames(world: World) -> list[str]:
    (world.out / "ff").mkdir()
    for number in range(1, 241):
        (world.out / "ff" / f"frame_{number:04d}.png").write_text(f"drawing {number}")
    return world.pair(f"--out={world.out / 'ff'}", "--format=png")


def the_model(world: World) -> list[str]:
    model = link_checkpoint(world.checkpoint, world.path / "W")
    return world.pair(f"--model={model}", f"--out={model / 'model.mp4'}")


def own_file(name: str, *changes: str) -> Callable[[World], list[str]]:
    """Arguments for a pair whose output has the name of somebody's own file."""

    def argv(world: World) -> list[str]:
        (world.out / name).write_text("mine")
        stem = name.partition(".")[0].removesuffix("_sheet")
        return world.pair(f"--out={world.out / stem}", *changes)

    return argv


def linked_file(world: World) -> list[str]:
    (world.path / "elsewhere.mp4").write_text("mine")
    (world.out / "x.mp4").symlink_to(world.path / "elsewhere.mp4")
    return world.pair(f"--out={world.out / 'x.mp4'}")


def another_programs_json(world: World) -> list[str]:
    (world.out / "x.json").write_text(json.dumps({"request": {}, "format": 1, "made_by": {}, "mine": "notes"}))
    return world.pair(f"--out={world.out / 'x.mp4'}")


@pytest.mark.parametrize(
    ("argv", "phrase"),
    [
        (folder_of_frames, "frame_0001.png"),
        (the_model, "model.json"),
        (own_file("x.mp4"), "x.mp4"),
        (own_file("x.gif", "--format=gif"), "x.gif"),
        (own_file("x.webp", "--format=webp"), "x.webp"),
        (own_file("x", "--format=png"), "x'"),
        (own_file("x_sheet.png", "--contact-sheet"), "x_sheet.png"),
        (own_file("x.json"), "x.json"),
        (linked_file, "x.mp4"),
        (another_programs_json, "x.json"),
    ],
    ids="frames model mp4 gif webp folder sheet record link json".split(),
)
def test_a_file_that_is_not_ours_is_never_replaced(
    argv: Callable[[World], list[str]], phrase: str, world: World, command: Command
):
    arguments = argv(world)
    before = snapshot(world.path)
    result = command("sample", *arguments)
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert phrase in result.err and "no record says that this program wrote it" in result.err
    assert snapshot(world.path) == before and not world.model.batches


def test_in_a_list_only_the_clip_in_whose_way_it_is_fails(empty: World, command: Command):
    argv = empty.folder(write_folder(empty.path / "folder", 3))
    (empty.out / "1_a.json").write_text("{")
    result = command("sample", *argv)
    assert result.code == 1 and "2 made, 0 done before, 1 failed" in result.out
    assert len(result.errors) == 1 and "1_a failed: " in result.err and "1_a.json" in result.err
    assert (empty.out / "1_a.json").read_text() == "{" and not (empty.out / "1_a.mp4").exists()


def test_a_file_that_appears_while_sampling_is_not_replaced_either(empty: World, command: Command):
    def before(number: int) -> None:
        (empty.out / "ab.mp4").write_text("mine")

    empty.model.before = before
    result = command("sample", *empty.pair())
    assert result.code == 2 and (empty.out / "ab.mp4").read_text() == "mine"
    assert {path.name for path in empty.out.iterdir()} == {"ab.mp4"}


def test_other_files_in_a_folder_of_frames_stay(empty: World, command: Command):
    (empty.out / "ab").mkdir()
    draw(empty.out / "ab" / "reference.png")
    assert command("sample", *empty.pair(f"--out={empty.out / 'ab'}", "--format=png")).code == 0
    assert len(list((empty.out / "ab").iterdir())) == 17


# --- files of ours ---


def test_own_files_are_replaced_and_longer_sequences_leave_nothing(tmp_path: Path, frames: np.ndarray):
    plan = OutputPlan(tmp_path, ("mp4", "png"), True)
    plan.write("x", frames, RECORD)
    plan.write("x", frames[:5], RECORD)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [f"frame_{i:02d}.png" for i in range(5)]
    assert {path.name for path in tmp_path.iterdir()} == {"x", "x.mp4", "x_sheet.png", "x.json"}


def test_a_file_that_was_changed_since_is_kept_under_another_name(
    empty: World, command: Command, tmp_path_factory: pytest.TempPathFactory
):
    argv = empty.pair("--format=mp4,png", f"--out={empty.out / 'ab'}")
    command("sample", *argv)
    (empty.out / "ab.mp4").write_text("cut by hand")
    (empty.out / "ab" / "frame_03.png").write_text("painted over")
    result = command("sample", *argv)
    assert result.code == 0 and len([line for line in result.err.splitlines() if line.startswith("note: ")]) == 2
    assert (empty.out / "ab.earlier.mp4").read_text() == "cut by hand"
    assert (empty.out / "ab" / "frame_03.earlier.png").read_text() == "painted over"
    (empty.out / "ab.mp4").write_text("cut again")
    command("sample", *argv)
    assert (empty.out / "ab.earlier-2.mp4").read_text() == "cut again"
    assert (empty.out / "ab.earlier.mp4").read_text() == "cut by hand"


@pytest.mark.parametrize("file", ["ab.mp4", "ab.gif", "ab_sheet.png", "ab/frame_00.png"])
def test_a_run_that_is_killed_while_its_files_take_their_places_goes_on(
    file: str, tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    plan = OutputPlan(tmp_path, ("mp4", "gif", "png"), True)
    plan.write("ab", frames, RECORD)
    real, killed = os.replace, []

    def replace(source: Any, target: Any) -> None:
        if str(target) == str(tmp_path / file):
            killed.append(target)
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            OutputPlan(tmp_path, ("mp4", "gif", "png"), True).write("ab", frames[::-1], RECORD)
    assert killed and not plan.is_done("ab", lambda: RECORD["request"])
    again = OutputPlan(tmp_path, ("mp4", "gif", "png"), True)
    again.check_ours("ab")
    again.write("ab", frames[::-1], RECORD)
    assert not list(tmp_path.rglob("*earlier*")) and not list(tmp_path.glob(".*"))
    assert again.is_done("ab", lambda: RECORD["request"])


def test_another_format_of_the_same_request_does_not_undo_the_first(empty: World, command: Command):
    argv = empty.folder(write_folder(empty.path / "folder", 1))
    command("sample", *argv)
    command("sample", *argv, "--format=gif")
    for change in ([], ["--format=gif"], ["--format=mp4,gif"]):
        assert "0 made, 1 done before" in command("sample", *argv, *change).out
    command("sample", *argv, "--format=gif", "--seed=9")  # now the .mp4 is one of another request, and still ours
    assert "1 made, 0 done before" in command("sample", *argv, "--seed=9").out
    assert not list(empty.out.glob("*earlier*"))


def test_two_clips_never_share_a_file(empty: World, command: Command):
    lines = [{"first": "first.png", "last": "last.png", "name": name} for name in ("a", "a.json")]
    result = command("sample", *empty.manifest(*lines, changes=["--format=png"]))
    assert result.code == 2 and "two clips would be written to" in result.err


# --- what is done ---

DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty-mp4": lambda out: (out / "0_a.mp4").write_bytes(b""),
    "shortened-mp4": lambda out: (out / "0_a.mp4").write_bytes((out / "0_a.mp4").read_bytes()[:-1]),
    "one-bit": lambda out: (out / "0_a.mp4").write_bytes((out / "0_a.mp4").read_bytes()[:-1] + b"?"),
    "no-frames": lambda out: shutil.rmtree(out / "0_a") or (out / "0_a").mkdir(),
    "one-frame-less": lambda out: (out / "0_a" / "frame_09.png").unlink(),
    "empty-frame": lambda out: (out / "0_a" / "frame_09.png").write_bytes(b""),
    "no-sheet": lambda out: (out / "0_a_sheet.png").unlink(),
}


def without_list(record: Path) -> None:
    """The record as versions before 2 wrote it."""
    values = json.loads(record.read_text())
    del values["files"]
    record.write_text(json.dumps(values | {"format": 1}))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_again(damage: str, empty: World, command: Command):
    argv = empty.folder(write_folder(empty.path / "folder", 2), "--format=mp4,png", "--contact-sheet")
    command("sample", *argv)
    whole = snapshot(empty.out)
    DAMAGES[damage](empty.out)
    result = command("sample", *argv)
    assert result.code == 0 and "1 made, 1 done before" in result.out
    again = {path: data for path, data in snapshot(empty.out).items() if "earlier" not in path}
    assert {p: d for p, d in again.items() if not p.endswith(".json")} == {
        p: d for p, d in whole.items() if not p.endswith(".json")
    }


def test_records_without_a_list_of_files_still_count(empty: World, command: Command):
    argv = empty.folder(write_folder(empty.path / "folder", 3), "--format=mp4,gif,png", "--contact-sheet")
    command("sample", *argv)
    for record in empty.out.glob("*.json"):
        without_list(record)
    assert "0 made, 3 done before" in command("sample", *argv).out
    (empty.out / "0_a.gif").write_bytes(b"")
    (empty.out / "1_a" / "frame_03.png").write_bytes(b"cut")
    result = command("sample", *argv)
    assert "2 made, 1 done before, 0 failed" in result.out
    assert (empty.out / "1_a" / "frame_03.earlier.png").read_bytes() == b"cut"


def test_files_of_a_record_without_a_list_are_kept(empty: World, command: Command):
    argv = empty.folder(write_folder(empty.path / "folder", 1))
    command("sample", *argv)
    without_list(empty.out / "0_a.json")
    before = (empty.out / "0_a.mp4").read_bytes()
    result = command("sample", *argv, "--seed=9")
    assert result.code == 0 and "kept as '0_a.earlier.mp4'" in result.err
    assert (empty.out / "0_a.earlier.mp4").read_bytes() == before != (empty.out / "0_a.mp4").read_bytes()


EARLIER_FORMS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "before the list of files": (lambda record: record.pop("files") and record.update(format=1), "--seed=9"),
    "before the cross-fade": (lambda record: record["request"].pop("cross_fade"), "--cross-fade"),
    "before pixel formats": (lambda record: record["request"].pop("pixel_format"), "--pixel-format=rgb24"),
    "before solvers": (lambda record: record["request"]["options"].pop("solver"), "--steps=3"),
    "before fitting": (lambda record: record["request"]["options"].pop("fit"), "--fit=pad"),
    "with options at their defaults left out": (
        lambda record: [record["request"]["options"].pop(name) for name in ("eta", "frames", "second_pass")],
        "--no-second-pass",
    ),
}
"""What makes a record one of an earlier version, and a change that makes the clip another."""


@pytest.mark.parametrize("form", EARLIER_FORMS)
def test_records_of_earlier_versions_still_count(form: str, empty: World, command: Command):
    older, change = EARLIER_FORMS[form]
    argv = empty.folder(write_folder(empty.path / "folder", 1), "--contact-sheet")
    command("sample", *argv)
    values = json.loads((empty.out / "0_a.json").read_text())
    older(values)
    (empty.out / "0_a.json").write_text(json.dumps(values))
    assert "0 made, 1 done before" in command("sample", *argv).out
    assert "1 made, 0 done before" in command("sample", *argv, change).out


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"format": 2, "request": 1, "made_by": 2, "files": 3}', "\ud800", '{"format": 2}'],
)
def test_what_is_no_record_is_none(text: str, tmp_path: Path):
    (tmp_path / "a.json").write_text(text, errors="surrogatepass")
    assert read_record(tmp_path / "a.json") is None


def test_a_record_cannot_make_a_file_elsewhere_ours(tmp_path: Path, frames: np.ndarray):
    """A record that came with somebody's clips names what it likes: only the clip's own files are looked at."""
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    plan = OutputPlan(tmp_path / "out", ("png",), False)
    plan.write("x", frames, RECORD)
    values = json.loads((tmp_path / "out" / "x.json").read_text())
    values["files"]["../mine.txt"] = plan.stamps.of(tmp_path / "mine.txt").plain()
    (tmp_path / "out" / "x.json").write_text(json.dumps(values))
    plan.write("x", frames[:3], RECORD)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_reported_by_its_name(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match="/x.mp4' cannot be written") as caught:
        OutputPlan(tmp_path, ("mp4",), False).write("x", frames, RECORD)
    assert ".tooncrafter" not in str(caught.value) and not list(tmp_path.iterdir())


def test_the_ending_stays_as_it_was_given_and_browsers_can_stream(empty: World, command: Command):
    assert command("sample", *empty.pair(f"--out={empty.out / 'X.MP4'}")).code == 0
    assert {path.name for path in empty.out.iterdir()} == {"X.MP4", "X.json"}
    data = (empty.out / "X.MP4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_names_are_printed_without_what_a_terminal_obeys(empty: World, command: Command):
    argv = empty.pair(f"--out={empty.out / 'a'}/x.mp4", "--prompt=hello")
    (empty.path / "a\x1b[2J.png").write_text("no picture")
    result = command("sample", *argv, f"--first={empty.path}/a\x1b[2J.png")
    assert result.code == 2 and "a\\x1b[2J.png" in result.err and "\x1b" not in result.err
    folder = write_folder(empty.path / "folder", 1)
    (folder / "0_a.png").rename(folder / "0\x1b]0;owned\x07.png")
    result = command("sample", *(a for a in empty.folder(folder) if a != "--quiet"))
    assert result.code == 0 and "\x1b" not in result.err + result.out and "\\x1b]0;owned\\x07" in result.err
    assert [path.name for path in empty.out.glob("*.mp4")] == ["0_]0;owned_.mp4"]


def test_the_picture_of_the_frames_is_that_of_the_video(tmp_path: Path, frames: np.ndarray):
    paths = OutputPlan(tmp_path, ("png",), False).write("x", frames, RECORD)
    assert (read_image(paths["png"] / "frame_07.png") == frames[7]).all()
    assert Image.open(paths["png"] / "frame_00.png").size == (64, 64)
