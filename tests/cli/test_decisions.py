"""What `tooncrafter sample` decides about its pictures: said on one line each, once, and kept in the record."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.world import Command, World, draw, draw_lines, write_folder
from tests.io.picture_files import DISPLAY_P3, rgb_profile


def notes(err: str) -> list[str]:
    return [line.removeprefix("note: ") for line in err.splitlines() if line.startswith("note: ")]


def test_what_is_cut_off_is_said_once_a_picture(world: World, command: Command):
    folder = write_folder(world.path / "folder", pairs=2)
    for name in ("0_a", "0_b"):
        draw(folder / f"{name}.png", height=90, width=160)
    result = command("sample", *world.folder(folder, "--quiet"))
    assert result.code == 0
    wanted = [f"'{folder / name}.png' (160 x 90) loses 43 % of its width at 64 x 64 pixels" for name in ("0_a", "0_b")]
    assert [sentence.split(": fit=pad")[0] for sentence in notes(result.err)] == wanted


def test_profiles_long_prompts_and_sketches_are_said(world: World, command: Command):
    picture = np.asarray(Image.open(world.path / "first.png"))
    Image.fromarray(picture).save(world.path / "p3.png", icc_profile=rgb_profile(DISPLAY_P3, 2.2, "Display P3"))
    sketch = draw_lines(world.path / "sketch.png", paper=0, ink=255)
    result = command(
        "sample",
        *world.pair(f"--first={world.path / 'p3.png'}", f"--sketch=7:{sketch}", f"--prompt={'cat ' * 80}the end"),
    )
    assert result.code == 0
    said = " | ".join(notes(result.err))
    assert "p3.png' has the colour profile 'Display P3': converted to sRGB" in said
    assert "is read as bright lines on dark paper: 3.1 % of it is ink" in said
    assert "its end is cut off, 'cat cat" in said and "the end'" in said
    assert len(notes(result.err)) == 3


def test_a_recognised_polarity_is_in_the_record(world: World, command: Command):
    sketch = draw_lines(world.path / "sketch.png", paper=0, ink=255)
    for said in ([], ["--bright-sketches"]):
        assert (
            command("sample", *world.pair(f"--sketch=7:{sketch}", "--out=" + str(world.path / "x.mp4"), *said)).code
            == 0
        )
        request = json.loads((world.path / "x.json").read_text())["request"]
        assert request["sketches"]["7"]["dark_lines"] is False


def test_records_from_before_the_fit_and_the_polarity_could_be_left_open_still_count(world: World, command: Command):
    draw_lines(world.path / "sketch.png")
    argv = world.manifest({"first": "first.png", "last": "last.png", "sketches": {"7": "sketch.png"}, "name": "old"})
    assert command("sample", *argv).code == 0
    record = json.loads((world.out / "old.json").read_text())
    request = record["request"]
    assert request["options"]["fit"] == "crop" and request["sketches"]["7"]["dark_lines"] is True
    assert set(request) == {
        *(
            "first",
            "last",
            "prompt",
            "negative_prompt",
            "sketches",
            "draft",
            "seed",
            "fps",
            "options",
            "model",
            "dtype",
            "playback_fps",
            "drop_last",
            "cross_fade",
            "pixel_format",
        )
    }
    for again in ([], ["--fit=crop"], ["--dark-sketches"]):
        assert "1 done before" in command("sample", *argv, *again).out
    assert "1 made" in command("sample", *argv, "--fit=pad").out


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pictures_of_two_shapes_are_taken_where_it_is_said_how(world: World, command: Command, fit: str):
    tall = draw(world.path / "tall.png", height=192, width=108)
    result = command("sample", *world.pair(f"--last={tall}", f"--fit={fit}", f"--out={world.path / 'x.mp4'}"))
    assert result.code == 0 and bool(notes(result.err)) == (fit == "crop")


def test_a_lossless_file_is_another_request(world: World, command: Command):
    argv = world.manifest({"first": "first.png", "last": "last.png", "name": "x"})
    assert command("sample", *argv).code == 0
    assert json.loads((world.out / "x.json").read_text())["request"]["pixel_format"] == "yuv420p"
    assert "1 done before" in command("sample", *argv, "--pixel-format=yuv420p").out
    assert "1 made" in command("sample", *argv, "--pixel-format=rgb24").out
    assert json.loads((world.out / "x.json").read_text())["request"]["pixel_format"] == "rgb24"
    result = command("sample", *argv, "--pixel-format=rgb24", "--format=gif")
    assert result.code == 2 and "none are written" in result.err
