"""JSON is written strictly and whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.io.formats.clips import files
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_json


def test_json_is_strict(tmp_path: Path):
    record = {"seed": np.int64(3), "psnr": [np.float32(1.5), float("nan"), np.inf], 7: np.arange(3), "out": Path("a/b")}
    write_json(tmp_path / "a.json", {**record, "prompt": "歩く男", "ok": np.bool_(True), "none": None, "t": (1, 2)})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "seed": 3,
        "psnr": [1.5, None, None],
        "7": [0, 1, 2],
        "out": "a/b",
        "prompt": "歩く男",
        "ok": True,
        "none": None,
        "t": [1, 2],
    }
    assert "歩く男" in text and text.endswith("}\n")
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "b.json", {"x": object()})
    assert files(tmp_path) == ["a.json"]


def test_paths_that_cannot_be_files(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "directory").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        write_json(tmp_path / "directory", {})
    with pytest.raises(UserError, match="file/below"):
        write_json(tmp_path / "file" / "below" / "x", {})
    assert files(tmp_path) == ["directory", "file"]


def test_permissions_are_the_usual_ones_and_a_name_needs_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    old = os.umask(0o022)
    try:
        write_json("a.json", {})
    finally:
        os.umask(old)
    assert files(tmp_path) == ["a.json"] and (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644
