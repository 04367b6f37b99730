"""`tooncrafter sample` of shots: keys, timing, what is kept and gone on with, manifests, and bad requests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_bad_input import REPOSITORY, snapshot
from tests.cli.world import Command, World, draw, draw_lines, write_manifest

FRAMES = (0, 1, 4, 12, 35, 95)
"""Of keys, with gaps of 1, 3, 8, 23 and 60 frames."""


def draw_keys(world: World) -> list[Path]:
    return [draw(world.path / f"key_{frame:03}.png", 2 * frame) for frame in FRAMES]


def keys(world: World, *changes: str, out: str = "shot") -> list[str]:
    """Arguments of a shot with all keys, as a folder of frames."""
    paths = draw_keys(world)
    value = ",".join(f"{frame}:{path}" for frame, path in zip(FRAMES, paths, strict=True))
    return [f"--keys={value}", f"--out={world.out / out}", "--format=png", *world.common, *changes]


def frames(world: World, name: str = "shot") -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((world.out / name).glob("*.png"))]


def clips(world: World, name: str = "shot") -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (world.out / f".{name}.clips").glob("*.npy")}


def test_a_shot_has_its_keys_pixel_by_pixel_on_twos_eased_with_sketches_and_prompts(empty: World, command: Command):
    sketches = [draw_lines(empty.path / f"lines_{frame}.png", height=64, width=64) for frame in (6, 61)]
    result = command(
        "sample",
        *keys(empty, "--exposure=2", "--timing=ease-in-out", "--prompt-at=0:walks", "--prompt-at=35-95:runs"),
        f"--sketch=6:{sketches[0]}",
        f"--sketch=61:{sketches[1]}",
    )
    assert result.code == 0, result.err
    found = frames(empty)
    assert len(found) == 96
    for frame in FRAMES:
        np.testing.assert_array_equal(found[frame], np.asarray(Image.open(empty.path / f"key_{frame:03}.png")))
    np.testing.assert_array_equal(found[15], found[14])
    request = empty.record("shot")["request"]
    assert request["timing"] == ["ease-in-out"] * 5
    assert request["exposure"] == [[2]] * 5
    assert request["prompts"] == [[0, 34, "walks"], [35, 95, "runs"]]
    assert sorted(request["sketches"]) == ["6", "61"]
    assert request["keys"]["95"]["path"].endswith("key_095.png")


def test_a_shot_that_was_killed_goes_on_and_a_finished_one_is_done(empty: World, command: Command):
    argv = keys(empty)
    command("sample", *argv, f"--out={empty.out / 'whole'}")
    whole, batches = frames(empty, "whole"), len(empty.model.batches)

    def kill(number: int) -> None:
        if number == batches + 1:
            raise KeyboardInterrupt

    empty.model.before = kill
    result = command("sample", *argv)
    assert result.code == 130 and "what was drawn is kept" in result.err
    assert not (empty.out / "shot").exists()
    kept = clips(empty)
    assert len(kept) == 4, "those of the first batch"

    empty.model.before = lambda number: None
    empty.model.batches.clear()
    assert command("sample", *argv).code == 0
    assert len(empty.model.batches) == batches - 1
    assert {name: time for name, time in clips(empty).items() if name in kept} == kept
    for one, other in zip(frames(empty), whole, strict=True):
        np.testing.assert_array_equal(one, other)

    empty.model.batches.clear()
    result = command("sample", *argv)
    assert result.code == 0 and "shot: done before" in result.err
    assert not empty.model.batches


KILLED = """
import os, signal, sys
import pytest
from tests.cli.world import FakeModel
from tooncrafter_jax.__main__ import main

def kill(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)

FakeModel(before=kill).install(pytest.MonkeyPatch())
main(["sample", *sys.argv[1:]])
"""


@pytest.mark.gate
def test_a_process_that_is_killed_outright_leaves_what_it_drew(empty: World, command: Command):
    argv = keys(empty)
    killed = subprocess.run([sys.executable, "-c", KILLED, *argv], cwd=REPOSITORY, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = clips(empty)
    assert len(kept) == 4
    assert command("sample", *argv).code == 0
    assert {name: time for name, time in clips(empty).items() if name in kept} == kept
    resumed = frames(empty)
    command("sample", *argv, f"--out={empty.out / 'whole'}")
    for one, other in zip(resumed, frames(empty, "whole"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert {path.name for path in empty.out.iterdir()} == {
        "shot",
        "shot.json",
        ".shot.clips",
        "whole",
        "whole.json",
        ".whole.clips",
    }


KILLED_WRITING = """
import os, signal, sys
import pytest
from tests.cli.world import FakeModel
from tooncrafter_jax.__main__ import main
from tooncrafter_jax.io.formats.gif import Gif

def write(self, path, frames, fps, options):
    path.write_bytes(b"half a picture")
    os.kill(os.getpid(), signal.SIGKILL)

Gif.write = write
FakeModel().install(pytest.MonkeyPatch())
main(["sample", *sys.argv[1:]])
"""


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_after_the_next_run(empty: World, command: Command):
    argv = [f"--keys=0:{draw(empty.path / 'a.png', 0)},4:{draw(empty.path / 'b.png', 99)}", *empty.common]
    argv += [f"--out={empty.out / 'shot.gif'}"]
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED_WRITING, *argv], cwd=REPOSITORY, capture_output=True, check=False)
    assert len(list(empty.out.glob(".tooncrafter-*.tmp"))) == 1, "one removes what the other left"
    other = empty.out / ".tooncrafter-0123456789abcdef-0.tmp"
    other.mkdir()
    assert command("sample", *argv).code == 0
    assert not empty.model.batches, "its clip was kept"
    assert empty.written == {"shot.gif", "shot.json", ".shot.clips", other.name}, "another clip's is left alone"


def test_another_timing_draws_only_what_is_new(empty: World, command: Command):
    value = f"--keys=0:{draw(empty.path / 'a.png', 0)},15:{draw(empty.path / 'b.png', 99)}"
    argv = [value, f"--out={empty.out / 'shot'}", "--format=png", *empty.common]
    command("sample", *argv)
    assert empty.model.batches == [1]
    assert command("sample", *argv, "--exposure=3", "--timing=thirds").code == 0
    assert empty.model.batches == [1], "the positions are frames of the clip that there is"
    assert command("sample", *argv, "--seed=9").code == 0
    assert empty.model.batches == [1, 1]
    assert len(clips(empty)) == 1, "the clip of the other seed is of no use"


def test_a_clip_that_was_changed_is_drawn_again_and_kept_under_another_name(empty: World, command: Command):
    argv = keys(empty)
    command("sample", *argv)
    (empty.out / "shot.json").unlink()
    for path in (empty.out / "shot").iterdir():
        path.unlink()
    changed = sorted((empty.out / ".shot.clips").glob("*.npy"))[0]
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    empty.model.batches.clear()
    result = command("sample", *argv)
    assert result.code == 0 and f"kept as '{changed.stem}.earlier.npy'" in result.err
    assert empty.model.batches == [4], "the others are used"
    assert changed.with_suffix(".earlier.npy").read_bytes().endswith(b"x")


def test_the_longest_name_of_a_key_still_makes_a_shot(empty: World, command: Command):
    draw(empty.path / f"{'k' * 251}.png", 0)
    draw(empty.path / "b.png", 99)
    argv = empty.manifest({"keys": {"0": f"{'k' * 251}.png", "4": "b.png"}}, changes=["--format=gif"])
    assert command("sample", *argv).code == 0
    assert "1 done before" in command("sample", *argv).out


def test_a_folder_of_numbered_keys(empty: World, command: Command):
    draw_keys(empty)
    folder = empty.path / "keys"
    folder.mkdir()
    for path in empty.path.glob("key_*.png"):
        path.rename(folder / path.name)
    argv = [f"--keys={folder}", f"--out={empty.out / 'shot'}", "--format=png", *empty.common]
    result = command("sample", *argv)
    assert result.code == 0 and "are on frames 0, 1, 4, 12, 35, 95" in result.err
    assert len(frames(empty)) == 96


def test_one_gap_can_have_a_timing_of_its_own(empty: World, command: Command):
    result = command(
        "sample", *keys(empty, "--timing=ease-in", "--timing=12:0.2,0.5", "--exposure=2", "--exposure=35:4")
    )
    assert result.code == 0, result.err
    request = empty.record("shot")["request"]
    assert request["timing"] == ["ease-in"] * 3 + ["0.2,0.5", "ease-in"]
    assert request["exposure"] == [[2]] * 4 + [[4]]


def test_a_shot_of_cels_keeps_their_opacity(empty: World, command: Command):
    paths = []
    for number in range(2):
        cel = np.zeros((64, 64, 4), np.uint8)
        cel[16:48, 8 + 16 * number : 40 + 16 * number] = (200, 40, 40, 255)
        paths.append(empty.path / f"cel{number}.png")
        Image.fromarray(cel).save(paths[-1])
    argv = [
        f"--keys=0:{paths[0]},6:{paths[1]}",
        "--alpha",
        f"--out={empty.out / 'shot'}",
        "--format=png",
        *empty.common,
    ]
    assert command("sample", *argv).code == 0
    found = frames(empty)
    assert found[3].shape == (64, 64, 4)
    for frame, path in zip((0, 6), paths, strict=True):
        np.testing.assert_array_equal(found[frame], np.asarray(Image.open(path)))


def test_a_loop_shows_its_first_key_once_and_variations_have_seeds_of_their_own(empty: World, command: Command):
    a, b = draw(empty.path / "a.png", 0), draw(empty.path / "b.png", 99)
    argv = [f"--keys=0:{a},10:{b},20:{a}", "--loop", f"--out={empty.out / 'shot.gif'}", "--samples-per-pair=2"]
    assert command("sample", *argv, *empty.common).code == 0
    for number in range(2):
        with Image.open(empty.out / f"shot_sample{number}.gif") as image:
            assert getattr(image, "n_frames", 1) == 20
        assert empty.record(f"shot_sample{number}")["request"]["seed"] == 123 + number


def test_the_sheet_of_a_shot_has_no_cross_fade_which_is_said(empty: World, command: Command):
    argv = [f"--keys=0:{draw(empty.path / 'a.png', 0)},4:{draw(empty.path / 'b.png', 99)}", *empty.common]
    result = command("sample", *argv, f"--out={empty.out / 'shot.gif'}", "--contact-sheet", "--cross-fade")
    assert result.code == 0 and result.err.count("has no cross-fade") == 1
    assert empty.record("shot")["request"]["cross_fade"] is False


def test_a_manifest_of_pairs_and_shots(empty: World, command: Command):
    draw_keys(empty)
    (empty.path / "numbered").mkdir()
    for frame in (3, 7):
        draw(empty.path / "numbered" / f"s01_{frame}.png", frame)
    lines: list[Any] = [
        {"first": "key_000.png", "last": "key_001.png", "name": "pair"},
        {
            "keys": {"0": "key_000.png", "24": "key_004.png"},
            "name": "own",
            "timing": {"0": "halves"},
            "exposure": 3,
            "prompt": {"0-12": "walks", "13": "runs"},
            "through_keys": True,
        },
        {"keys": "numbered", "timing": [0.25]},
        {"keys": {"0": "key_000.png", "0 ": "key_001.png"}, "name": "twice"},
        {"keys": {"5": "key_000.png", "2": "key_001.png"}, "name": "order"},
    ]
    argv = empty.manifest(*lines, changes=["--exposure=2"])
    result = command("sample", *argv)
    assert result.code == 1
    assert "3 made, 0 done before, 2 failed" in result.out
    assert len(result.errors) == 2
    assert "two keys on frame 0" in result.err and "comes after that on frame 5" in result.err
    assert empty.record("own")["request"]["timing"] == ["halves"]
    assert empty.record("s01_3")["request"]["exposure"] == [[2]]
    empty.model.batches.clear()
    result = command("sample", *argv)
    assert "0 made, 3 done before, 2 failed" in result.out and not empty.model.batches


BAD: list[tuple[str, Callable[[World], list[str]], str]] = [
    ("one-key", lambda w: ["--keys=0:first.png"], "at least two keys"),
    ("no-frame", lambda w: ["--keys=0:first.png,last.png"], "'first.png,last.png' does not exist"),
    ("no-picture", lambda w: ["--keys=0:first.png,24:"], "not of the form FRAME:PICTURE"),
    ("out-of-order", lambda w: ["--keys=0:first.png,40:last.png,24:first.png"], "order keys by their frames"),
    ("twice", lambda w: ["--keys=0:first.png,24:last.png,24:first.png"], "two keys on frame 24"),
    ("below-zero", lambda w: ["--keys=-1:first.png,24:last.png"], "numbered from 0"),
    ("missing-key", lambda w: ["--keys=0:first.png,24:nowhere.png"], "'nowhere.png' does not exist"),
    ("folder-missing", lambda w: ["--keys=nowhere"], "cannot read the folder nowhere"),
    ("folder-empty", lambda w: [f"--keys={w.path / 'empty'}"], "has no pictures"),
    ("folder-unnumbered", lambda w: [f"--keys={w.path}"], "has no number in its name"),
    ("shapes", lambda w: ["--keys=0:first.png,24:wide.png"], "cannot line up"),
    ("timing", lambda w: ["--timing=bounce"], "none of linear"),
    ("timing-twice", lambda w: ["--timing=ease-in", "--timing=linear"], "two for all gaps"),
    ("timing-of-no-gap", lambda w: ["--timing=24:ease-in"], "no gap begins"),
    ("chart", lambda w: ["--timing=quarters", "--exposure=12"], "room for 1 drawing"),
    ("exposure", lambda w: ["--exposure=0"], "for 0 frames"),
    ("exposure-words", lambda w: ["--exposure=sometimes"], "say how many frames"),
    ("sketch-on-a-key", lambda w: ["--sketch=24:first.png"], "is for a key"),
    ("sketch-beyond", lambda w: ["--sketch=25:first.png"], "no frame 25 for a sketch"),
    ("prompt-form", lambda w: ["--prompt-at=walks"], "not of the form FRAMES:TEXT"),
    ("prompt-frames", lambda w: ["--prompt-at=a-b:walks"], "no frame such as 24"),
    ("prompt-twice", lambda w: ["--prompt-at=3:walks", "--prompt-at=3:runs"], "two prompts for 3"),
    ("prompt-overlap", lambda w: ["--prompt-at=0-5:walks", "--prompt-at=5-9:runs"], "overlap"),
    ("prompt-both", lambda w: ["--prompt=x", "--prompt-at=3:walks"], "give one of them"),
    ("unevenness", lambda w: ["--unevenness=0.9"], "unevenness must be from 0.01 to 0.5"),
    ("loop", lambda w: ["--loop"], "a loop ends with its first key"),
    ("last", lambda w: ["--last=last.png"], "--last goes with --first"),
    ("draft", lambda w: ["--draft=."], "--draft goes with --first"),
    ("strength", lambda w: ["--strength=0.5"], "a shot has none"),
    ("two-backgrounds", lambda w: ["--alpha", "--two-backgrounds", "--format=png", "--out=x"], "over one background"),
    ("alpha-in-mp4", lambda w: ["--alpha"], "mp4 holds no opacity"),
    ("batch", lambda w: ["--batch-size=0"], "at least 1"),
    (
        "through-short-clips",
        lambda w: ["--keys=0:first.png,8:last.png,16:first.png", "--frames=6", "--through-keys"],
        "8 frames",
    ),
    ("with-first", lambda w: ["--first=first.png"], "not --first and --keys together"),
]


@pytest.mark.parametrize(("argv", "said"), [pytest.param(argv, said, id=name) for name, argv, said in BAD])
def test_a_bad_shot_is_one_sentence_and_exit_code_2(
    argv: Callable[[World], list[str]], said: str, world: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(world.path)
    draw(world.path / "wide.png", width=128)
    (world.path / "empty").mkdir()
    before = snapshot(world.path)
    common = ["--keys=0:first.png,24:last.png", f"--out={world.out / 'shot.mp4'}", *world.common]
    result = command("sample", *common, *argv(world))
    assert result.code == 2, result
    assert len(result.errors) == 1 and said in result.errors[0], result.err
    assert snapshot(world.path) == before
    assert not world.model.batches


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"first": "first.png"}, "'first', which no shot has"),
        ({"keys": 7}, "should be like"),
        ({"keys": {"a": "first.png"}}, "key on frame 'a'"),
        ({"keys": {}}, "has 0 keys, and a shot needs at least two"),
        ({"keys": {"0": "first.png"}}, "has 1 key, and a shot needs at least two"),
        ({"timing": {"a": "linear"}}, "frame where a gap begins"),
        ({"prompt": {"0": 7}}, "should be like"),
        ({"prompt": 7}, "should be text"),
        ({"loop": "yes"}, "should be true or false"),
        ({"seed": "x"}, "should be a whole number"),
        ({"through_keys": 3}, "through_keys must be of type bool"),
    ],
)
def test_a_bad_line_is_one_sentence_that_names_it(entry: dict[str, Any], said: str, world: World, command: Command):
    line = {"keys": {"0": "first.png", "24": "last.png"}} | entry
    result = command("sample", *world.manifest(line))
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert said in result.err and "line 1 of" in result.err


@pytest.mark.parametrize("flag", ["--timing=linear", "--exposure=2", "--through-keys", "--prompt-at=3:x"])
def test_options_of_a_shot_without_one_are_refused(flag: str, world: World, command: Command):
    result = command("sample", *world.pair(flag))
    assert result.code == 2 and "is of a shot" in result.err


def test_a_folder_of_clips_that_is_somebody_elses_is_refused(empty: World, command: Command):
    (empty.out / ".shot.clips").mkdir()
    (empty.out / ".shot.clips" / "clips.json").write_text(json.dumps({"mine": True}))
    result = command("sample", *keys(empty))
    assert result.code == 2 and "move the folder away" in result.err


def test_timing_of_one_gap_is_none_of_a_manifest(world: World, command: Command):
    write_manifest(world.path / "x.jsonl")
    result = command(
        "sample", *world.manifest({"first": "first.png", "last": "last.png"}, changes=["--timing=3:linear"])
    )
    assert result.code == 2 and "each line has its own" in result.err
