"""Manifests, captions and thresholds from anybody: jobs, captions, limits, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.hostile.amounts import amounts, bounded_memory, holds_for
from tests.hostile.strategies import json_values, spoilt_bytes, spoilt_values
from tests.verification.folders import TINY
from tooncrafter_jax.curation.captions import read_captions
from tooncrafter_jax.curation.decision import Decision
from tooncrafter_jax.curation.report import write_report
from tooncrafter_jax.curation.thresholds import Thresholds
from tooncrafter_jax.curation.workspace import Workspace
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.json_files import parse_json
from tooncrafter_jax.io.owned_files import check_json_is_ours
from tooncrafter_jax.sampling.batch.jobs import Job
from tooncrafter_jax.sampling.batch.manifests import manifest_scenes
from tooncrafter_jax.sampling.batch.prompt_folders import folder_jobs
from tooncrafter_jax.sampling.request import Pair
from tooncrafter_jax.sampling.sequence import Shot
from tooncrafter_jax.verification.folder import Folder
from tooncrafter_jax.weights.checkpoint_directory import is_checkpoint

ROWS = [
    {"source": "film.mp4", "caption": "a fox", "start": 0, "stop": 40},
    {"id": "film/000", "caption": "a fox runs"},
    {"source": "other", "caption": "two foxes", "start": "3", "stop": None},
]
LINE = {
    "first": "a.png",
    "last": "b.png",
    "prompt": "a fox",
    "sketches": {"7": "c.png"},
    "seed": 3,
    "fps": 8,
    "name": "fox",
}
TEMPLATE = Pair(first=Path("a.png"), last=Path("b.png"))


def captions(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        for caption in read_captions(path):
            assert caption.text.encode() is not None and len(caption.text) <= 10_000 and "\n" not in caption.text
            assert caption.source and caption.start >= 0
    except UserError as error:
        assert len(str(error)) < 1000 + len(str(path))


@amounts
def test_any_captions(tmp_path: Path, examples: int) -> None:
    kinds = st.sampled_from((".json", ".jsonl", ".csv"))
    valid = {
        ".json": json.dumps(ROWS).encode(),
        ".jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
        ".csv": b'source,caption,start,stop\nfilm.mp4,"a fox, red",0,40\nother,two foxes,,\n',
    }
    cases = kinds.flatmap(lambda kind: st.tuples(st.just(kind), spoilt_bytes(valid[kind])))
    holds_for(examples, cases, lambda case: captions(tmp_path / f"a{case[0]}", case[1]))
    values = spoilt_values(ROWS) | json_values
    holds_for(examples, values, lambda value: captions(tmp_path / "a.json", json.dumps(value).encode()))


@amounts
def test_any_manifest(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "m.jsonl"

    def holds(data: bytes) -> None:
        path.write_bytes(data)
        try:
            for job in manifest_scenes(path, TEMPLATE, Shot({})):
                assert "/" not in job.name and not job.name.startswith(".") and job.name.isprintable()
                if isinstance(job, Job):
                    assert isinstance(job.pair.seed, int) and isinstance(job.pair.fps, int | None)
        except UserError as error:
            assert printable(error) == str(error)

    holds_for(examples, spoilt_values(LINE).map(lambda line: json.dumps(line).encode()), holds)
    holds_for(examples, spoilt_bytes(json.dumps(LINE).encode()), holds)


@amounts
def test_any_thresholds(examples: int) -> None:
    valid = json.loads(json.dumps(Thresholds().as_json()))

    def holds(values: Any) -> None:
        try:
            limits = Thresholds.from_json(values)
        except UserError:
            return
        assert Thresholds.from_json(limits.as_json()).version == limits.version

    holds_for(examples, spoilt_values(valid).filter(lambda values: isinstance(values, dict)), holds)


@pytest.mark.parametrize("name", ["min_frames", "min_motion"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_thresholds_that_are_no_numbers(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"the threshold {name} is .*: give a number, or turn it off"):
        Thresholds.from_json({name: value})


@pytest.mark.parametrize(
    ("caption", "message"),
    [("\ud800", "characters that are no text"), ("x" * 20_000, "more characters than a caption has")],
)
def test_captions_that_are_none(tmp_path: Path, caption: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"source": "a", "caption": caption}]))
    with pytest.raises(UserError, match=message):
        read_captions(path)


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".csv"])
def test_a_sparse_file_of_captions(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a{kind}"
    with path.open("wb") as file:
        file.truncate(20 * 2**30)
    with (
        bounded_memory(64),
        pytest.raises(UserError, match="is no file of captions: it has more than 268,435,456 bytes"),
    ):
        read_captions(path)


@pytest.mark.parametrize("size", [2**26 + 1, 20 * 2**30])
def test_a_sparse_manifest_and_sparse_prompts(tmp_path: Path, size: int) -> None:
    manifest, prompts = tmp_path / "m.jsonl", tmp_path / "prompts.txt"
    for path in (manifest, prompts):
        with path.open("wb") as file:
            file.truncate(size)
    message = "is too long to read \\(it has more than 67,108,864 bytes\\): split it"
    with bounded_memory(64), pytest.raises(UserError, match=f"m.jsonl {message}"):
        manifest_scenes(manifest, TEMPLATE, Shot({}))
    with bounded_memory(64), pytest.raises(UserError, match=f"prompts.txt {message}"):
        folder_jobs(tmp_path, TEMPLATE)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_of_any_system(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(ending.join([json.dumps(LINE)] * 2).encode("utf-8-sig"))
    assert [job.name for job in manifest_scenes(path, TEMPLATE, Shot({}))] == ["fox", "fox_2"]


def test_a_sparse_table_of_keys(tmp_path: Path) -> None:
    for file in TINY.iterdir():
        (tmp_path / file.name).symlink_to(file)
    table = tmp_path / "keys.tsv"
    table.unlink()
    with table.open("wb") as file:
        file.truncate(20 * 2**30)
    folder = Folder(tmp_path)
    for content in (None, b"\xff\xfe\t(1,)\tfloat32"):
        if content is not None:
            table.write_bytes(content)
        with bounded_memory(256), pytest.raises(UserError, match="keys.tsv cannot be read .*: copy the folder again"):
            folder.key_table("model")


def test_sparse_files_where_ours_would_be_written(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    for path in (tmp_path / "table.json", tmp_path / "page" / "index.html"):
        with path.open("wb") as file:
            file.truncate(20 * 2**30)
    with bounded_memory(64), pytest.raises(UserError, match="table.json' holds something else"):
        check_json_is_ours(tmp_path / "table.json", ("rows",))
    workspace = Workspace(tmp_path / "work")
    with bounded_memory(64), pytest.raises(UserError, match="index.html' would be replaced, but no record"):
        write_report(tmp_path / "page", {}, [], Decision({}, {}, {}, ""), workspace, Thresholds())


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("", True),
        ('{\n "format_version": 1,\n "comp', True),
        ('{"format_version": 1, "components": []}', True),
        ("[" * 100_000, False),
        ("architecture: unet", False),
        ('{"class_name": "Sequ', False),
        ("\xff\xfe", False),
    ],
)
def test_which_model_json_is_ours_to_replace(tmp_path: Path, text: str, ours: bool) -> None:
    (tmp_path / "model.json").write_bytes(text.encode("latin-1"))
    assert is_checkpoint(tmp_path) is ours


def test_a_sparse_model_json_is_not_ours(tmp_path: Path) -> None:
    with (tmp_path / "model.json").open("wb") as file:
        file.truncate(20 * 2**30)
    with bounded_memory(64):
        assert not is_checkpoint(tmp_path)


def test_keys_twice_and_depth(tmp_path: Path) -> None:
    for text, message in (('{"a": 1, "a": 2}', "the key 'a' twice"), ("[" * 100_000, "nested too deep")):
        with pytest.raises(ValueError, match=message):
            parse_json(text)
