"""`tooncrafter app`'s options, and `tooncrafter sample --server`, which does what it does locally."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'app'")

from tests.cli.world import Command, World, draw, draw_lines
from tests.serving.world import FakeModel, serving
from tooncrafter_jax.sampling.records import read_record

SIZE = ("--height=64", "--width=64", "--steps=2", "--quiet")


def arguments(world: World, out: Path, *more: str) -> list[str]:
    pictures = (f"--first={world.path / 'first.png'}", f"--last={world.path / 'last.png'}")
    return [*pictures, f"--out={out}", *SIZE, *more]


def test_files_are_those_that_a_local_run_writes(empty: World, command: Command, tmp_path: Path) -> None:
    draw_lines(tmp_path / "sketch.png")
    more = ("--format=png,gif", "--seed=5", f"--sketch=7:{tmp_path / 'sketch.png'}", "--samples-per-pair=2")
    local = command("sample", f"--model={empty.checkpoint}", *arguments(empty, empty.out / "ab.mp4", *more))
    assert local.code == 0, local.err
    model = FakeModel()
    model.sample = empty.model.sample  # pyright: ignore[reportAttributeAccessIssue]
    with serving(tmp_path / "data", model) as server:
        remote = command("sample", f"--server={server.url}", *arguments(empty, tmp_path / "far" / "ab.mp4", *more))
        assert remote.code == 0, remote.err
        assert server.engine.storage.database.jobs() == []  # the server has forgotten it
    assert remote.out.replace(str(tmp_path / "far"), str(empty.out)) == local.out
    assert {path.name for path in (tmp_path / "far").iterdir()} == empty.written
    for file in sorted((empty.out).rglob("*.png")):
        assert file.read_bytes() == (tmp_path / "far" / file.relative_to(empty.out)).read_bytes()
    here, there = (json.loads((folder / "ab_sample1.json").read_text()) for folder in (empty.out, tmp_path / "far"))
    changed = {"model", "options"}  # the served model has options of its own
    assert {k: v for k, v in here["request"].items() if k not in changed} == {
        k: v for k, v in there["request"].items() if k not in changed
    }
    assert there["request"]["options"]["guidance_scale"] == 5.0 and there["made_by"]["platform"] == "a test"
    record = read_record(tmp_path / "far" / "ab_sample1.json")
    assert record is not None and record.files is not None and len(record.files) == 18


def test_files_of_others_are_not_replaced(world: World, command: Command, tmp_path: Path) -> None:
    model = FakeModel()
    with serving(tmp_path / "data", model) as server:
        result = command("sample", f"--server={server.url}", *arguments(world, world.out / "other.mp4"))
    assert result.code == 2 and "other.mp4" in result.errors[0] and not model.batches


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--dtype=float32",), "--dtype cannot be had of a --server"),
        (("--batch-size=2",), "--batch-size cannot be had"),
        (("--compilation-cache=x",), "--compilation-cache cannot be had"),
        (("--coordinator=a:1",), "--coordinator cannot be had"),
        (("--process-id=0",), "--process-id cannot be had"),
        (("--model=large",), "the server has no model 'large': choose one of tiny"),
        (("--height=65",), "must be a multiple of"),
        (("--frames=1",), "the number of frames must be"),
    ],
)
def test_what_a_server_cannot_do(
    world: World, command: Command, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    with serving(tmp_path / "data") as server:
        result = command("sample", f"--server={server.url}", *arguments(world, tmp_path / "new.mp4", *more))
    assert result.code == 2 and words in result.errors[0], result.err
    assert not (tmp_path / "new.mp4").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "draw.example", "ftp://draw.example"])
def test_a_server_that_is_not_there(world: World, command: Command, url: str) -> None:
    result = command("sample", f"--server={url}", *arguments(world, world.out / "new.mp4"))
    assert result.code == 2 and re.search("cannot be reached|is no server", result.errors[0])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--port=99999"], "--port must be from 0 to 65535"),
        (["--keep=0"], "keep must be"),
        (["--upload-megabytes=0"], "must be from 1 to 4096"),
        (["--batch-size=0"], "--batch-size must be at least 1"),
        (["--model=a=small", "--model=a=small"], "two models are called 'a'"),
        (["--model=missing-model"], "missing-model"),
        (["--attention=splash"], "--attention is 'splash', which needs a TPU"),
        (["--host=203.0.113.7", "--port=0"], "cannot be listened on"),
    ],
)
def test_what_is_wrong_with_app(argv: list[str], words: str, command: Command, tmp_path: Path) -> None:
    result = command("app", f"--data={tmp_path / 'data'}", "--free-megabytes=0", *argv)
    assert result.code == 2 and words in result.errors[0], result.err


def test_a_folder_of_another_server(command: Command, tmp_path: Path) -> None:
    with serving(tmp_path):
        result = command("app", f"--data={tmp_path}")
    assert result.code == 2 and "another server uses" in result.errors[0]
    draw(tmp_path / "file.png")
    result = command("app", f"--data={tmp_path / 'file.png'}")
    assert result.code == 2 and "cannot be written" in result.errors[0]


def test_the_node_for_comfyui_is_written(command: Command, tmp_path: Path) -> None:
    result = command("app", f"--write-comfyui-node={tmp_path / 'custom_nodes'}")
    (path,) = (tmp_path / "custom_nodes").iterdir()
    assert result.code == 0 and str(path) in result.out and "class ToonCrafterInBetween" in path.read_text()
    result = command("app", f"--write-comfyui-node={tmp_path}", "--port=8000")
    assert result.code == 2 and "leave the other options out" in result.errors[0]
    path.write_text("import torch")
    result = command("app", f"--write-comfyui-node={path.parent}")
    assert result.code == 2 and "would be replaced" in result.errors[0] and path.read_text() == "import torch"
