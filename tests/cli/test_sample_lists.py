"""`tooncrafter sample` of folders and manifests: what is made, skipped, left out, and called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import Command, World, draw, draw_lines, write_folder, write_manifest
from tooncrafter_jax.io import contact_sheets
from tooncrafter_jax.sampling.model_loading import BUNDLED, DEFAULT_MODEL


def test_a_folder_is_read_as_the_published_script_does(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    (folder / ".hidden.png").write_text("no picture")
    (folder / "0_b.png").rename(folder / "0_b.v2.PNG")
    result = command("sample", *empty.folder(folder))
    assert result.code == 0 and "2 made, 0 done before, 0 failed" in result.out
    assert empty.written == {"0_a.mp4", "0_a.json", "1_a.mp4", "1_a.json"}
    request = empty.record("0_a")["request"]
    assert request["prompt"] == "prompt 0" and request["last"]["path"].endswith("0_b.v2.PNG")


def test_a_folder_of_loops(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    for i in range(2):
        (folder / f"{i}_b.png").unlink()
    assert command("sample", *empty.folder(folder, "--loop")).code == 0
    assert {path.name for path in empty.out.glob("*.mp4")} == {"0_a.mp4", "1_a.mp4"}


def test_what_is_done_is_skipped_and_the_model_not_even_loaded(
    empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    argv = empty.folder(write_folder(empty.path / "folder", 2))
    command("sample", *argv)
    times = {path: path.stat().st_mtime_ns for path in empty.out.iterdir()}

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(empty.model, "load", refuse)
    result = command("sample", *argv)
    assert result.code == 0 and "0 made, 2 done before, 0 failed" in result.out
    assert {path: path.stat().st_mtime_ns for path in empty.out.iterdir()} == times


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (lambda w: ["--steps=3"], 2),
        (lambda w: ["--seed=5"], 2),
        (lambda w: ["--playback-fps=12"], 2),
        (lambda w: ["--dtype=bfloat16"], 2),
        (lambda w: ["--contact-sheet"], 2),
        (lambda w: ["--format=mp4,gif"], 2),
        (lambda w: ["--batch-size=2", "--decode-frames-per-chunk=1"], 0),
        (lambda w: ["--attention=xla"], 0),
        (lambda w: draw(w.path / "folder" / "0_a.png", 77) and [], 1),
        (lambda w: (w.path / "folder" / "prompts.txt").write_text("other\nprompt 1") and [], 1),
        (lambda w: (w.out / "1_a.mp4").unlink() or [], 1),
        (lambda w: [f"--folder={(w.path / 'folder').rename(w.path / 'moved')}"], 0),
    ],
    ids="steps seed playback dtype sheet format batch attention picture prompt lost moved".split(),
)
def test_only_what_has_changed_is_made_again(change: Any, made: int, empty: World, command: Command):
    argv = empty.folder(write_folder(empty.path / "folder", 2))
    command("sample", *argv)
    result = command("sample", *argv, *change(empty))
    assert result.code == 0 and f"{made} made, {2 - made} done before" in result.out


def test_a_clip_in_the_making_leaves_the_earlier_one_whole(
    empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    argv = empty.folder(write_folder(empty.path / "folder", 1), "--contact-sheet")
    command("sample", *argv)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(contact_sheets, "write_contact_sheet", interrupt)
        assert command("sample", *argv, "--seed=5").code == 130
    assert "0 made, 1 done before" in command("sample", *argv).out
    assert "1 made, 0 done before" in command("sample", *argv, "--seed=5").out


def test_batches_and_progress(empty: World, command: Command):
    argv = [a for a in empty.folder(write_folder(empty.path / "folder", 5), "--batch-size=2") if a != "--quiet"]
    result = command("sample", *argv)
    assert empty.model.batches == [2, 2, 2]  # the last one filled with a copy, which is thrown away
    lines = result.err.splitlines()
    assert lines[:5] == [f"{i}_a.png -> {i}_b.png: prompt {i}" for i in range(5)]
    assert [line.split(":")[0] for line in lines[5:]] == [f"{i + 1}/5 {i}_a" for i in range(5)]


def test_bad_pairs_leave_their_places_in_a_batch_to_others(empty: World, command: Command):
    """One size of batch is one program to compile."""
    folder = write_folder(empty.path / "folder", 6)
    for number in (0, 3):
        (folder / f"{number}_a.png").write_bytes(b"no picture")
    result = command("sample", *empty.folder(folder, "--batch-size=2"))
    assert result.code == 1 and "4 made, 0 done before, 2 failed" in result.out
    assert empty.model.batches == [2, 2]
    assert {"1_a.mp4", "2_a.mp4", "4_a.mp4", "5_a.mp4"} <= empty.written


def test_a_picture_that_goes_while_others_are_made_leaves_its_place(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 11)
    empty.model.before = lambda number: (folder / "9_a.png").unlink(missing_ok=True)  # far behind what is prepared
    result = command("sample", *empty.folder(folder, "--batch-size=2"))
    assert result.code == 1 and "10 made, 0 done before, 1 failed" in result.out
    assert empty.model.batches == [2] * 5


@pytest.mark.parametrize("change", [["--fps=0"], ["--seed=-1"], ["--height=96"]], ids="fps seed height".split())
def test_no_model_is_loaded_for_pairs_that_are_all_wrong(
    change: list[str], empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "tooncrafter_jax.sampling.batch.model_source.ModelSource.load", lambda *_: pytest.fail("the model was loaded")
    )
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 2)), *change)
    assert result.code in (1, 2) and result.errors and empty.model.batches == []


def test_where_no_model_is_named_the_bundled_one_draws(empty: World, command: Command):
    argv = [argument for argument in empty.pair() if not argument.startswith("--model")]
    assert command("sample", *argv).code == 0
    assert empty.record()["request"]["model"]["path"] == str(BUNDLED / DEFAULT_MODEL)


def test_a_model_that_is_not_there_is_reported_with_those_that_are(world: World, command: Command):
    result = command("sample", *world.pair(), "--model=large")
    assert result.code == 2 and "tooncrafter convert" in result.err and f"'{DEFAULT_MODEL}'" in result.err


def test_other_weights_in_the_same_directory_make_other_clips(empty: World, command: Command, tmp_path: Path):
    model = Path(shutil.copytree(empty.checkpoint, tmp_path / "model"))
    argv = [*empty.folder(write_folder(empty.path / "folder", 1)), f"--model={model}"]
    command("sample", *argv)
    moved = model.rename(tmp_path / "moved")
    assert "1 done before" in command("sample", *argv, f"--model={moved}").out
    description = json.loads((moved / "model.json").read_text())
    description["weights"]["unet"] = "f" * 16
    (moved / "model.json").write_text(json.dumps(description))
    assert "1 made, 0 done before" in command("sample", *argv, f"--model={moved}").out


def test_only_the_main_process_writes(empty: World, command: Command, monkeypatch: pytest.MonkeyPatch):
    for module in ("sampling.batch.making", "cli.batch_report"):
        monkeypatch.setattr(f"tooncrafter_jax.{module}.is_main_process", lambda: False)
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 2)))
    assert result.code == 0 and result.out == "" and len(empty.model.batches) == 2
    assert not empty.written


def test_what_another_process_cannot_read_is_made_by_none(
    empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    """Hosts with other lists would wait for each other for ever."""
    monkeypatch.setattr(
        "tooncrafter_jax.sampling.batch.selection.as_all_processes_say",
        lambda usable: [False, *usable[1:]] if len(usable) == 3 else usable,
    )
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 3)))
    assert result.code == 1 and "2 made, 0 done before, 1 failed" in result.out
    assert "0_a failed: another process cannot read its pictures" in result.err


def test_some_of_the_flags_for_several_hosts_are_not_enough(world: World, command: Command):
    result = command("sample", *world.pair("--coordinator=a:1"))
    assert result.code == 2 and "belong together" in result.err


def test_quiet_says_nothing_on_the_way(empty: World, command: Command):
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 2)))
    assert result.err == "" and len(result.out.splitlines()) == 1


def test_paths_of_a_manifest_are_relative_to_it(
    empty: World, command: Command, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    (empty.path / "shots" / "drawings").mkdir(parents=True)
    for name in ("a", "b", "c"):
        draw(empty.path / "shots" / "drawings" / f"{name}.png", ord(name))
    draw_lines(empty.path / "shots" / "drawings" / "d.png")
    lines = [
        {"first": "drawings/a.png", "last": "drawings/b.png", "prompt": "x", "seed": 9, "fps": 20},
        {"first": "drawings/b.png", "last": str(empty.path / "last.png"), "sketches": {"7": "drawings/d.png"}},
        {"first": "drawings/a.png", "last": "drawings/c.png", "name": "c"},
        {"first": "drawings/a.png", "last": "drawings/c.png"},
    ]
    manifest = write_manifest(empty.path / "shots" / "shots.jsonl", *lines)
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    arguments = [f"--manifest={manifest}", f"--out={empty.out}", "--prompt=default", "--fps=12", *empty.common]
    result = command("sample", *arguments)
    assert result.code == 0, result.err
    assert {path.stem for path in empty.out.glob("*.mp4")} == {"a", "b", "c", "a_2"}
    request = empty.record("a")["request"]
    assert (request["prompt"], request["seed"], request["fps"]) == ("x", 9, 20)
    assert request["first"]["path"] == str(empty.path / "shots" / "drawings" / "a.png")
    request = empty.record("b")["request"]
    assert (request["prompt"], request["seed"], request["fps"]) == ("default", 123, 12)
    assert request["sketches"]["7"]["path"].endswith("drawings/d.png")


def test_samples_per_pair_are_named_as_the_published_script_names_them(empty: World, command: Command):
    command("sample", *empty.pair("--samples-per-pair=3", "--seed=40"))
    names = [f"ab_sample{i}" for i in range(3)]
    assert empty.written == {f"{name}.{kind}" for name in names for kind in ("mp4", "json")}
    assert [empty.record(name)["request"]["seed"] for name in names] == [40, 41, 42]
