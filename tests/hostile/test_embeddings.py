"""Files of embeddings whose small tensors contradict each other are refused when they are opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tooncrafter_jax.data.embeddings import EmbeddingSource, shard_name
from tooncrafter_jax.errors import UserError

SETTINGS = {
    "format": 1,
    "clips": 2,
    "height": 32,
    "width": 32,
    "antialias": False,
    "frames": 4,
    "start_multiple": 1,
    "dtype": "float32",
}
TENSORS = {
    "lengths": np.asarray([4, 4], np.int32),
    "fps": np.asarray([12, 12], np.float32),
    "token_ids": np.zeros((2, 77), np.int32),
}


def source(directory: Path, ids: Any, **changes: np.ndarray) -> EmbeddingSource:
    (directory / "settings.json").write_text(json.dumps(SETTINGS))
    (directory / "index.json").write_text(json.dumps({"shards": [[0, 2]]}))
    save_file({**TENSORS, **changes}, directory / shard_name(0, 2), {"ids": json.dumps(ids)})
    return EmbeddingSource(directory)


def test_what_fits_is_read(tmp_path: Path) -> None:
    assert source(tmp_path, ["a", "b"]).open(1).length == 4


@pytest.mark.parametrize(
    ("ids", "changes"),
    [
        (["a"], {}),
        ({"a": 1, "b": 2}, {}),
        ([1, 2], {}),
        (["a", "b"], {"lengths": np.asarray([4, -4], np.int32)}),
        (["a", "b"], {"lengths": np.asarray([[4, 4]], np.int32)}),
        (["a", "b"], {"fps": np.asarray([12, np.nan], np.float32)}),
        (["a", "b"], {"token_ids": np.zeros((1, 77), np.int32)}),
    ],
    ids=["few ids", "no list", "numbers", "negative length", "shape", "nan", "few tokens"],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, ids: Any, changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match="records-.* is missing or damaged"):
        source(tmp_path, ids, **changes).open(1)
