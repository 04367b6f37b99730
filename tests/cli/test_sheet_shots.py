"""`tooncrafter sample` of time sheets and folders of layers, and time sheets that it writes; and bad requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_bad_input import snapshot
from tests.cli.test_decisions import notes
from tests.cli.world import Command, World, draw
from tooncrafter_jax.io.timesheets import (
    TIMESHEETS,
    Exposure,
    Layer,
    Mark,
    TimeSheet,
    read_cel,
    read_timesheet,
    write_timesheet,
)


def cel(left: int, colour: tuple[int, int, int] = (200, 40, 40)) -> np.ndarray:
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[16:48, left : left + 24] = (*colour, 255)
    return picture


def cut(world: World) -> TimeSheet:
    """A painting below a cel with two keys and one in-between that is asked for; written as cut.xdts."""
    paint = np.asarray(Image.open(draw(world.path / "paint.png")))
    layer = Layer("A", (Exposure(0, "1"), Exposure(8, "2")), (Mark(4, "in-between"),))
    sheet = TimeSheet("cut", 12, (Layer("BG", (Exposure(0, "1"),)), layer))
    pictures = {"BG": {"1": paint}, "A": {"1": cel(4), "2": cel(36)}}
    write_timesheet(world.path / "in" / "cut.xdts", sheet, pictures)
    return sheet


def sheet(world: World, *changes: str) -> list[str]:
    return [f"--timesheet={world.path / 'in' / 'cut.xdts'}", f"--out={world.out / 'shot'}", *world.common, *changes]


def frames(world: World, name: str = "shot") -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((world.out / name).glob("*.png"))])


def test_a_sheet_becomes_a_clip_and_sheets_of_every_format(empty: World, command: Command):
    cut(empty)
    argv = sheet(empty, f"--format=png,mp4,{','.join(TIMESHEETS)}")
    result = command("sample", *argv)
    assert result.code == 0, result.err
    assert "the time sheet says no rate: the clip is played at 24 frames a second" in result.err
    assert empty.written == {"shot", "shot.mp4", "shot_xdts", "shot.oca", "shot_csv", "shot.json", ".shot.clips"}
    video = frames(empty)
    assert video.shape == (12, 64, 64, 3)
    changes = [frame for frame in range(1, 12) if not np.array_equal(video[frame], video[frame - 1])]
    assert changes == [4, 8]
    paths = {"xdts": "shot_xdts/shot.xdts", "oca": "shot.oca", "csv": "shot_csv/shot.csv"}
    for name in TIMESHEETS:
        found = read_timesheet(empty.out / paths[name])
        assert [(layer.name, layer.shown(12)) for layer in found.layers] == [
            ("BG", ["1"] * 12),
            ("A", ["1"] * 4 + ["1a"] * 4 + ["2"] * 4),
        ]
        assert found.fps == (24 if TIMESHEETS[name].has_rate else None)
        for drawing, left in (("1", 4), ("2", 36)):
            np.testing.assert_array_equal(read_cel(found.layer("A").cels[drawing], found.size), cel(left))
        assert 0 < read_cel(found.layer("A").cels["1a"])[..., 3].mean() < 255
    assert empty.model.batches == [1], "one clip is drawn: the painting is still"
    assert "shot: done before" in command("sample", *argv).err
    again = command("sample", *argv, "--exposure=2", "--playback-fps=12")
    assert again.code == 0 and empty.model.batches == [1], "the sheet says where drawings begin"


def test_a_sheet_that_is_changed_is_drawn_again_and_its_former_drawings_are_taken_away(empty: World, command: Command):
    before = cut(empty)
    assert command("sample", *sheet(empty, "--format=xdts")).code == 0
    path = empty.path / "in" / "cut.xdts"
    path.unlink()
    write_timesheet(path, TimeSheet("cut", 12, (before.layers[0], Layer("A", before.layers[1].exposures))))
    assert command("sample", *sheet(empty, "--format=xdts", "--exposure=8")).code == 0
    assert read_timesheet(empty.out / "shot_xdts" / "shot.xdts").layer("A").drawings() == ("1", "2")
    assert not (empty.out / "shot_xdts" / "A" / "A_0001a.png").exists()
    (empty.out / "shot_xdts" / "A" / "mine.png").write_bytes(b"mine")
    result = command("sample", *sheet(empty, "--format=xdts", "--exposure=1"))
    assert result.code == 2 and "no record says that this program wrote it" in result.err


def test_one_layer_of_a_sheet_with_opacity(empty: World, command: Command):
    cut(empty)
    result = command("sample", *sheet(empty, "--format=png", "--layer=A", "--alpha", "--playback-fps=8"))
    assert result.code == 0 and "frames a second" not in result.err, result.err
    video = frames(empty)
    for frame, left in ((0, 4), (3, 4), (8, 36), (11, 36)):
        np.testing.assert_array_equal(video[frame], cel(left))


def test_variations_of_a_sheet_have_seeds_of_their_own(empty: World, command: Command):
    cut(empty)
    assert command("sample", *sheet(empty, "--format=oca", "--samples-per-pair=2")).code == 0
    for number in range(2):
        request = empty.record(f"shot_sample{number}")["request"]
        assert request["layers"]["1"]["runs"]["0"]["seed"] == 123 + number


def test_keys_and_pairs_become_sheets_too(empty: World, command: Command):
    a, b = draw(empty.path / "a.png", 0), draw(empty.path / "b.png", 99)
    argv = [f"--keys=5:{a},13:{b}", "--exposure=4", f"--out={empty.out / 'shot'}", "--format=xdts", *empty.common]
    assert command("sample", *argv).code == 0
    (layer,) = read_timesheet(empty.out / "shot_xdts" / "shot.xdts").layers
    assert (layer.name, layer.shown(9), layer.keys()) == ("shot", [*"111122223"], {0: "1", 8: "3"})
    argv = [f"--first={a}", f"--last={b}", f"--out={empty.out / 'pair'}", "--format=csv", *empty.common]
    assert command("sample", *argv).code == 0
    read = read_timesheet(empty.out / "pair_csv" / "pair.csv")
    assert (read.duration, read.fps, len(read.layers[0].cels)) == (16, 8, 16)


def test_a_rate_that_is_given_counts_for_the_sheets_of_a_manifest(empty: World, command: Command):
    cut(empty)
    argv = empty.manifest({"timesheet": "in/cut.xdts"}, changes=["--format=csv", "--playback-fps=12"])
    result = command("sample", *argv)
    assert result.code == 0 and "the clip is played at" not in result.err
    assert empty.record("cut")["request"]["playback_fps"] == 12
    assert read_timesheet(empty.out / "cut_csv" / "cut.csv").fps == 12


def test_all_layers_are_drawn_in_batches_of_one_size(empty: World, command: Command):
    layers = [
        Layer(name, tuple(Exposure(4 * n, str(n)) for n in range(2 + extra))) for name, extra in (("A", 0), ("B", 2))
    ]
    pictures = {layer.name: {one: cel(4 + 9 * int(one)) for one in layer.drawings()} for layer in layers}
    write_timesheet(empty.path / "in" / "cut.xdts", TimeSheet("cut", 13, tuple(layers)), pictures)
    assert command("sample", *sheet(empty, "--format=png")).code == 0
    assert empty.model.batches == [3, 3], "of one gap and of three"


@pytest.mark.parametrize("folders", [True, False])
def test_a_folder_of_layers(empty: World, command: Command, folders: bool):
    folder = empty.path / "cut"
    for name, frame, colour in (("a", 3, 200), ("a", 11, 200), ("b", 3, 90), ("b", 7, 90)):
        path = folder / (f"{name}/{name}_{frame:04}.png" if folders else f"{name}_{frame:04}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cel(4 * frame if name == "a" else 2 * frame, (colour, 40, 40))).save(path)
    argv = [f"--keys={folder}", f"--out={empty.out / 'shot'}", "--format=png,oca", "--alpha", *empty.common]
    result = command("sample", *argv)
    assert result.code == 0, result.err
    said = notes(result.err)
    assert f"'{folder}' has the layers 'a', 'b', from the bottom to the top; its frame 3 is frame 0 of the shot" in said
    assert "the layer 'b' ends at frame 7: its last key is held to frame 11" in said
    video = frames(empty)
    assert len(video) == 9
    read = read_timesheet(empty.out / "shot.oca")
    np.testing.assert_array_equal(read_cel(read.layer("a").cels["11"], read.size), cel(44))
    assert read.layer("b").shown(9)[4:] == ["7"] * 5
    np.testing.assert_array_equal(video[8, 20, 14:38], np.broadcast_to((90, 40, 40, 255), (24, 4)))


def test_lines_of_a_manifest_name_sheets_and_folders_of_layers(empty: World, command: Command):
    cut(empty)
    for name in ("a", "b"):
        (empty.path / "layers" / name).mkdir(parents=True)
        for frame in (0, 4):
            Image.fromarray(cel(frame)).save(empty.path / "layers" / name / f"{frame}.png")
    lines: list[Any] = [
        {"timesheet": "in/cut.xdts", "layers": ["A"], "prompt": {"0-8": "walks"}, "seed": 5},
        {"timesheet": "in/cut.xdts", "name": "whole"},
        {"keys": "layers", "exposure": 2},
        {"timesheet": "in/none.xdts", "name": "gone"},
    ]
    argv = empty.manifest(*lines[:3], changes=["--format=oca"])
    result = command("sample", *argv)
    assert result.code == 0 and "3 made" in result.out, result.err
    assert "cut: the time sheet says no rate: the clip is played at 24 frames a second" in result.err
    rates = {name: empty.record(name)["request"]["playback_fps"] for name in ("cut", "whole", "layers")}
    assert rates == {"cut": 24, "whole": 24, "layers": 8}
    request = empty.record("cut")["request"]["layers"]
    assert [layer["name"] for layer in request.values()] == ["A"]
    assert (request["0"]["runs"]["0"]["seed"], request["0"]["runs"]["0"]["prompts"]) == (5, [[0, 8, "walks"]])
    assert "3 done before" in command("sample", *argv).out
    assert read_timesheet(empty.out / "layers.oca").layers[1].shown(5) == ["0", "0", "0a", "0a", "4"]
    result = command("sample", *empty.manifest(*lines, changes=["--format=oca"]))
    assert result.code == 2 and "none.xdts' does not exist" in result.err


BAD: list[tuple[str, Callable[[World], list[str]], str]] = [
    ("missing-sheet", lambda w: [f"--timesheet={w.path / 'none.xdts'}"], "none.xdts' does not exist: check the path"),
    ("no-sheet", lambda w: [f"--timesheet={w.path / 'paint.png'}"], "ends in '.png', which is none of a time sheet"),
    ("damaged", lambda w: [f"--timesheet={_damaged(w)}"], "cannot be read as an XDTS time sheet (its first line is"),
    ("missing-drawing", lambda w: _without(w, "A/A_0002.png"), "'2' of the layer 'A', shown from frame 8 on, has no"),
    ("bad-drawing", lambda w: _bad(w, "A/A_0002.png"), "A_0002.png"),
    ("no-layer", lambda w: ["--layer=C"], "the sheet has no layer 'C': it has 'BG', 'A'"),
    ("sketch-layer", lambda w: ["--sketch-layer=rough", "--layer=A"], "the sheet has no layer 'rough'"),
    ("sketches-of-two", lambda w: ["--sketch=4:paint.png"], "sketches guide one layer, but 2 are drawn ('BG', 'A')"),
    ("loop", lambda w: ["--loop"], "says itself what is shown at its end: leave loop out"),
    ("last", lambda w: ["--last=paint.png"], "--last goes with --first, not with --timesheet"),
    ("keys", lambda w: ["--keys=0:paint.png"], "not --keys and --timesheet together"),
    ("gap", lambda w: ["--timing=3:ease-in"], "for the gap after frame 3, where no gap of the sheet begins"),
    ("prompt", lambda w: ["--prompt-at=12:runs"], "for frame 12 on, but the shot has frames 0 to 11"),
    ("own-file", lambda w: [f"--out={w.path / 'in' / 'A'}", "--format=png"], "but the inputs are there"),
    ("sheet-as-file", lambda w: [f"--out={w.out / 'shot.xdts'}"], "ends in .xdts: use "),
    ("alpha", lambda w: ["--alpha", "--format=mp4"], "mp4 holds no opacity"),
    ("alpha-of-all", lambda w: ["--alpha", "--layer=BG", "--layer=A", "--background=#c82828"], "colour of the drawing"),
]


def _damaged(world: World) -> Path:
    (world.path / "bad.xdts").write_text("{}")
    return world.path / "bad.xdts"


def _without(world: World, name: str) -> list[str]:
    (world.path / "in" / name).unlink()
    return []


def _bad(world: World, name: str) -> list[str]:
    (world.path / "in" / name).write_bytes(b"no picture")
    return []


@pytest.mark.parametrize(("argv", "said"), [pytest.param(argv, said, id=name) for name, argv, said in BAD])
def test_a_bad_sheet_is_one_sentence_and_exit_code_2(
    argv: Callable[[World], list[str]], said: str, empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(empty.path)
    cut(empty)
    changes = argv(empty)
    before = snapshot(empty.path)
    result = command("sample", *sheet(empty, "--format=png"), *changes)
    assert result.code == 2, result
    assert len(result.errors) == 1 and said in result.errors[0], result.err
    assert snapshot(empty.path) == before and not empty.model.batches


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"timesheet": 7}, "has timesheet = 7, which should be text"),
        ({"layers": "A"}, 'has layers = \'A\', which should be like ["A", "B"]'),
        ({"keys": {"0": "a.png"}}, "has timesheet and 'keys', which no shot has"),
        ({"sketch_layer": 3}, "has sketch_layer = 3, which should be text"),
        ({"first": "a.png"}, "has timesheet and 'first', which no shot has"),
        ({"name": "a/b"}, "has the name 'a/b', which cannot be a file name"),
    ],
)
def test_a_bad_line_of_a_sheet_is_one_sentence_that_names_it(
    entry: dict[str, Any], said: str, empty: World, command: Command
):
    cut(empty)
    result = command("sample", *empty.manifest({"timesheet": "in/cut.xdts"} | entry))
    assert result.code == 2 and said in result.err and "line 1 of" in result.err


@pytest.mark.parametrize("flag", ["--layer=A", "--sketch-layer=A"])
def test_options_of_a_sheet_without_one_are_refused(flag: str, world: World, command: Command):
    result = command("sample", *world.pair(flag))
    assert result.code == 2 and "is of a time sheet: it goes with --timesheet" in result.err
