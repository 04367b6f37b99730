"""Records beside clips that anybody could have written: read or refused; looking at them changes nothing, and they lead
nowhere else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.hostile.amounts import amounts, bounded_memory, holds_for
from tests.hostile.strategies import json_values, spoilt_bytes, spoilt_values
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.records import RECORD_FORMAT, ClipRecord, read_record
from tooncrafter_jax.sampling.request import Pair, SamplingOptions

VIDEO = np.arange(3 * 16 * 16 * 3, dtype=np.uint8).reshape(3, 16, 16, 3)
NAME = "fox"


class Made:
    """A clip that is finished, as MP4 and as pictures, and something of the user's beside its directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.plan = folder, OutputPlan(folder / "out", ("mp4", "png"))
        self.mine = folder / "mine.png"
        self.mine.write_bytes(b"mine")
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(name.encode())
        pair = Pair(folder / "a.png", folder / "b.png", prompt="a fox")
        self.request = self.plan.request_of(pair, SamplingOptions(), {"weights": "w"}, "float32")
        self.record = {"format": RECORD_FORMAT, "request": self.request, "made_by": {"platform": "cpu"}}
        self.path = self.plan.write(NAME, VIDEO, self.record)["record"]
        self.valid: dict[str, Any] = json.loads(self.path.read_text())

    def files(self) -> dict[str, tuple[int, int]]:
        """All files but the record, with what changes when they do."""
        found = (path for path in self.folder.rglob("*") if path != self.path and path.is_file())
        return {os.fspath(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    def looks(self, data: bytes) -> bool | None:
        """What a run finds beside a record of these bytes: whether the clip is done; None if it would not be made."""
        self.path.write_bytes(data)
        plan = OutputPlan(self.plan.directory, self.plan.formats)
        found = read_record(self.path)
        assert found is None or isinstance(found, ClipRecord)
        done = plan.is_done(NAME, lambda: self.request)
        assert isinstance(done, bool) and not (done and found is None)
        try:
            plan.check_ours(NAME)
        except UserError as error:
            assert str(error).isprintable()
            return None
        return done


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_the_record_itself_is_done(made: Made) -> None:
    assert made.looks(json.dumps(made.valid).encode()) is True


@amounts
def test_any_record(made: Made, examples: int) -> None:
    before = made.files()
    unfinished = {**made.valid, "unfinished": {name: [stamp] for name, stamp in made.valid["files"].items()}}
    values = st.sampled_from((made.valid, unfinished)).flatmap(spoilt_values) | json_values

    def holds(data: bytes) -> None:
        made.looks(data)
        assert made.files() == before

    holds_for(examples, values.map(lambda value: json.dumps(value).encode()), holds)
    holds_for(examples, spoilt_bytes(json.dumps(made.valid).encode()), holds)


@pytest.mark.parametrize("part", ["files", "earlier", "unfinished"])
@pytest.mark.parametrize(
    "name", ["../mine.png", "fox/../../mine.png", "{folder}/mine.png", "fox/../../../dev/zero", ""]
)
def test_a_record_names_nothing_outside_its_directory(made: Made, part: str, name: str) -> None:
    stamp: Any = made.plan.stamps.of(made.mine).plain()
    if "zero" in name:
        name = f"fox/{'../' * len(made.path.parts)}dev/zero"
        stamp["size"] = 0
    name = name.format(folder=made.folder)
    content = {**made.valid["files"], name: stamp}
    if part == "unfinished":
        content = {file: [of_file] for file, of_file in content.items()}
    made.path.write_text(json.dumps({**made.valid, part: content}))
    found = read_record(made.path)
    assert found is not None and name not in found.named(())
    assert made.looks(made.path.read_bytes()) is (part != "unfinished")
    made.path.write_text(json.dumps({**made.valid, "files": {**made.valid["files"], name: stamp}}))
    made.plan.write(NAME, VIDEO[:2], made.record)
    assert made.mine.read_bytes() == b"mine" and name not in json.loads(made.path.read_text())["files"]


@pytest.mark.parametrize("depth", [300, 900, 990, 3000, 100_000])
def test_a_request_that_is_nested_deep_is_another(made: Made, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    text = json.dumps({**made.valid, "request": "deep"}).replace('"deep"', deep)
    assert made.looks(text.encode()) is not True


def test_a_sparse_record_is_none(made: Made) -> None:
    with made.path.open("wb") as file:
        file.truncate(20 * 2**30)
    with bounded_memory(64):
        assert read_record(made.path) is None


def test_what_is_no_regular_file_is_not_read(made: Made) -> None:
    """A device has a size of 0 and no end."""
    stamp = made.plan.stamps.of(made.mine)._replace(size=0)
    assert not made.plan.stamps.same(Path("/dev/zero"), [stamp])
