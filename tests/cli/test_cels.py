"""Pictures with transparency in, clips with transparency out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_decisions import notes
from tests.cli.world import Command, World
from tests.io.drawn_cels import disc


def draw_cels(world: World) -> list[str]:
    """Arguments for a pair of cels of the clip's size; the sampler cross-fades them."""
    for name, at in (("first", 0.3), ("last", 0.5)):
        Image.fromarray(disc(at)[16:80, 16:80]).save(world.path / f"{name}.png")
    return [*world.pair("--seed=0")]


def frames(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("frame_*.png"))])


def test_keys_come_back_exactly_and_what_is_between_has_opacity(empty: World, command: Command):
    argv = [*draw_cels(empty), f"--out={empty.out / 'ab'}", "--format=png,mp4", "--alpha", "--contact-sheet"]
    result = command("sample", *argv)
    assert result.code == 0, result.err
    cels = frames(empty.out / "ab")
    assert cels.shape == (16, 64, 64, 4)
    np.testing.assert_array_equal(cels[0], np.asarray(Image.open(empty.path / "first.png")))
    np.testing.assert_array_equal(cels[-1], np.asarray(Image.open(empty.path / "last.png")))
    assert (cels[8][[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all() and cels[8][32, 32, 3] == 255
    assert empty.written == {"ab", "ab.mp4", "ab_sheet.png", "ab.json"}
    assert [line for line in notes(result.err) if "over white" in line] == [
        "mp4 holds no opacity and shows the clip over white"
    ]
    assert sum("are drawn over #" in line for line in notes(result.err)) == 1
    request = json.loads((empty.out / "ab.json").read_text())["request"]["options"]
    assert (request["alpha"], request["background"], request["two_backgrounds"]) == (True, "auto", False)


def test_another_background_is_another_request_and_an_old_record_is_of_white(empty: World, command: Command):
    draw_cels(empty)
    argv = empty.manifest({"first": "first.png", "last": "last.png", "name": "x"}, changes=["--format=webp"])
    assert command("sample", *argv).code == 0
    record = json.loads((empty.out / "x.json").read_text())
    for name in ("alpha", "background", "two_backgrounds"):
        del record["request"]["options"][name]
    (empty.out / "x.json").write_text(json.dumps(record))
    assert "1 done before" in command("sample", *argv).out
    assert "1 made" in command("sample", *argv, "--alpha").out
    assert "1 done before" in command("sample", *argv, "--alpha", "--background=auto").out
    assert "1 made" in command("sample", *argv, "--alpha", "--background=#00ff00").out
    assert "1 made" in command("sample", *argv, "--alpha", "--two-backgrounds").out
    assert empty.model.batches == [1, 1, 1, 1, 1]


def test_transparency_that_is_lost_is_said_once(empty: World, command: Command):
    result = command("sample", *draw_cels(empty))
    assert result.code == 0
    (said,) = notes(result.err)
    assert "first.png' and '" in said and "last.png' have transparent pixels, which become white" in said
    assert notes(command("sample", *draw_cels(empty), "--background=white").err) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--alpha"], "mp4 holds no opacity, which alpha keeps: write webp, apng, webm, mov, png, xdts, oca or csv"),
        (["--alpha", "--out=OUT/ab.gif", "--format=mp4"], "gif and mp4 hold no opacity"),
        (["--alpha", "--out=OUT/ab.webp", "--background=#e63c28"], "is a colour of the drawing"),
        (["--alpha", "--out=OUT/ab.webp", "--background=sky"], "'sky' is no colour"),
        (["--two-backgrounds"], "add the option alpha"),
        (["--alpha", "--out=OUT/ab.webp", "--last=PATH/opaque.png"], "opaque.png' has no transparent pixels"),
        (["--alpha", "--out=OUT/ab.webp", "--last=PATH/empty.png"], "empty.png' is transparent everywhere"),
    ],
)
def test_what_cannot_be_is_one_sentence(empty: World, command: Command, changes: list[str], words: str):
    argv = draw_cels(empty)
    Image.new("RGB", (64, 64), "red").save(empty.path / "opaque.png")
    Image.new("RGBA", (64, 64)).save(empty.path / "empty.png")
    places = {"OUT": str(empty.out), "PATH": str(empty.path)}
    for short, long in places.items():
        changes = [change.replace(short, long) for change in changes]
    result = command("sample", *argv, *changes)
    assert result.code == 2 and words in result.err and len(result.errors) == 1
    assert not empty.model.batches and empty.written == set()


def test_of_a_list_only_the_pair_without_transparency_fails(empty: World, command: Command):
    draw_cels(empty)
    Image.new("RGB", (64, 64), "red").save(empty.path / "opaque.png")
    argv = empty.manifest(
        {"first": "first.png", "last": "opaque.png", "name": "no"},
        {"first": "first.png", "last": "last.png", "name": "yes"},
        changes=["--alpha", "--format=apng"],
    )
    result = command("sample", *argv)
    assert result.code == 1 and "1 made, 0 done before, 1 failed" in result.out
    assert "no failed: " in result.err and "opaque.png' has no transparent pixels" in result.err
    assert {"yes.apng", "yes.json"} <= empty.written and "no.apng" not in empty.written
