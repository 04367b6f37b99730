"""`sample.py` as two processes, which stand for two hosts: one program over the devices of both, files written once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SMALL = ["--random-weights=tiny", "--height=64", "--width=64", "--steps=1", "--seed=5", "--format=png", "--quiet"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "sample.py"), *SMALL, *arguments]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def frames(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


@pytest.mark.slow
def test_two_processes_make_the_clips_of_one(tmp_path: Path) -> None:
    """Two pairs and one that cannot be read; each process has results of its own, as on a disk that is not shared."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    pictures = np.random.default_rng(0).integers(0, 255, (3, 2, 64, 64, 3), np.uint8)
    for number, pair in enumerate(pictures):
        for name, picture in zip("ab", pair, strict=True):
            Image.fromarray(picture).save(folder / f"{number}_{name}.png")
    (folder / "1_a.png").write_bytes(b"no picture")
    (folder / "prompts.txt").write_text("one\ntwo\nthree\n")

    hosts = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes=2"]
    processes = [start(f"--folder={folder}", f"--out={tmp_path / str(i)}", *hosts, f"--process-id={i}") for i in (0, 1)]
    outputs = [process.communicate(timeout=1500) for process in processes]
    assert [process.returncode for process in processes] == [1, 1], outputs
    assert "2 made, 0 done before, 1 failed" in outputs[0][0]
    assert "made" not in outputs[1][0], "one process reports"
    assert {path.name for path in (tmp_path / "0").iterdir()} == {"0_a", "0_a.json", "2_a", "2_a.json"}
    assert not list((tmp_path / "1").iterdir())

    alone = start(
        f"--first={folder / '2_a.png'}", f"--last={folder / '2_b.png'}", "--prompt=three", f"--out={tmp_path / 'alone'}"
    )
    _, errors = alone.communicate(timeout=1500)
    assert alone.returncode == 0, errors
    difference = np.abs(frames(tmp_path / "0" / "2_a").astype(int) - frames(tmp_path / "alone"))
    assert difference.max() <= 1 and (difference > 0).mean() <= 1e-3
