"""`tooncrafter curate embed`: a set becomes embeddings that training reads, and mistakes end in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.cli.world import Command
from tests.data.loader_world import LENGTHS, make_set
from tests.reference import tiny_params
from tooncrafter_jax.data.embeddings import ENCODERS
from tooncrafter_jax.data.loader import Loader, LoaderConfig
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.weights.store import CheckpointWriter

SIZE = ("--height=16", "--width=24")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of short clips in `clips`, and a model's encoders in `model`."""
    directory = tmp_path_factory.mktemp("world")
    make_set(directory / "clips", **{f"clip_{number}": {"length": 17} for number in range(len(LENGTHS))})
    with CheckpointWriter(directory / "model", tiny(), {}) as writer:
        for name in ("unet", "image_projector", "decoder"):
            writer.write(name, {"unused": jnp.zeros(1)})
        for name in ENCODERS:
            writer.write(name, tiny_params(name))
    return directory


def argv(world: Path, out: Path, *changes: str) -> list[str]:
    return ["curate", "embed", str(world / "clips"), f"--model={world / 'model'}", f"--out={out}", *SIZE, *changes]


@pytest.mark.gate
def test_training_reads_what_it_writes(world: Path, tmp_path: Path, command: Command):
    out = tmp_path / "out"
    first = command(*argv(world, out, "--start-multiple=4", "--part=0/2", "--stored-dtype=float32"))
    assert (first.code, first.out) == (0, f"{out}: this part is done; other parts are missing still\n")
    assert first.err.splitlines()[-1] == f"{len(LENGTHS) // 2}/{len(LENGTHS) // 2}"
    second = command(*argv(world, out, "--start-multiple=4", "--part=1/2", "--stored-dtype=float32", "--quiet"))
    assert (second.code, second.out, second.err) == (0, f"{out}: all {len(LENGTHS)} clips\n", "")
    with Loader.open(LoaderConfig(embeddings=str(out), batch=3, height=16, width=24, start_multiple=4)) as loader:
        batch: Any = next(loader)
    assert batch["moments"].shape == (3, 16, 2, 3, 8) and batch["moments"].dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        (["--split=holdout"], "has no split 'holdout'"),
        (["--part=2/2"], "no part 2 of 2"),
        (["--part=half"], "--part=half"),
        (["--batch-size=0"], "--batch-size must be at least 1"),
        (["--shard-megabytes=0"], "--shard-megabytes must be at least 1"),
        (["--start-multiple=0"], "start_multiple is 0"),
        (["--height=20"], "multiples of 8"),
        (["--model=/nowhere"], "/nowhere"),
        (["--out=/dev/null/x"], "/dev/null"),
        (["--stored-dtype=int8"], "--stored-dtype"),
    ],
)
def test_mistakes_end_in_one_sentence(world: Path, tmp_path: Path, command: Command, changes: list[str], phrase: str):
    result = command(*argv(world, tmp_path / "out", *changes))
    assert result.code == 2 and len(result.errors) == 1 and phrase in result.errors[0], result
    assert not list(tmp_path.glob("out/*"))


def test_a_set_that_is_not_there(tmp_path: Path, world: Path, command: Command):
    result = command("curate", "embed", str(tmp_path), f"--model={world / 'model'}", f"--out={tmp_path / 'out'}")
    assert result.code == 2 and len(result.errors) == 1 and str(tmp_path) in result.errors[0]
