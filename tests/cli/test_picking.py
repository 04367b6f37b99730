"""Several variants of a pair, of which the best are kept: every one is told, and the record says which it was."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cli.test_decisions import notes
from tests.cli.world import Command, World
from tooncrafter_jax.io import read_image

SEEDS = ("--seed=998", "--samples-per-pair=4")
"""The sampler's clips are brighter by their seeds' last three digits: 1000 and 1001 are the best of 998 to 1001."""


def test_the_best_is_kept_from_one_batch_and_all_are_told(empty: World, command: Command):
    result = command("sample", *empty.pair(*SEEDS, "--pick=1", "--contact-sheet"))
    assert result.code == 0, result.err
    assert empty.model.batches == [4]
    assert empty.written == {"ab.mp4", "ab_sheet.png", "ab_candidates.png", "ab.json"}
    told = [line for line in notes(result.err) if "with a score of" in line]
    assert len(told) == 4
    assert "seed 1000 is number 1" in told[0] and told[0].endswith(", kept")
    assert all(line.endswith(", not kept") for line in told[1:])
    record = empty.record()
    assert [one["seed"] for one in record["picked"]] == [1000, 1001, 998, 999]
    assert [one["kept"] for one in record["picked"]] == [True, False, False, False]
    assert record["request"]["seed"] == 998 and record["request"]["picking"] == {"samples": 4, "pick": 1}
    assert set(record["files"]) == {"ab.mp4", "ab_sheet.png", "ab_candidates.png"}
    sheet = read_image(empty.out / "ab_candidates.png")
    assert sheet.shape[1] > 8 * 64 and sheet.shape[0] > 4 * 64


def test_several_are_kept_in_their_order_and_belong_to_one_record(empty: World, command: Command):
    argv = empty.manifest(
        {"first": "first.png", "last": "last.png", "name": "x", "seed": 998},
        {"first": "last.png", "last": "first.png", "name": "y"},
        changes=["--samples-per-pair=3", "--pick=2", "--format=png,gif", "--batch-size=2"],
    )
    result = command("sample", *argv)
    assert result.code == 0 and "2 made" in result.out, result.err
    assert empty.model.batches == [6]
    own = {f"{name}_pick{number}{end}" for name in "xy" for number in (1, 2) for end in ("", ".gif")}
    assert empty.written == own | {"x_candidates.png", "y_candidates.png", "x.json", "y.json"}
    best, second = (read_image(empty.out / f"x_pick{number}" / "frame_00.png") for number in (1, 2))
    np.testing.assert_allclose(best, read_image(empty.path / "first.png"), atol=1)  # seed 1000 adds nothing
    assert second.mean() > best.mean()
    assert sum(line.startswith("x: seed") for line in notes(result.err)) == 3
    assert "2 done before" in command("sample", *argv).out and empty.model.batches == [6]
    (empty.out / "x_pick2.gif").unlink()
    assert "1 made, 1 done before" in command("sample", *argv).out
    assert "2 made" in command("sample", *argv[:-4], "--samples-per-pair=3", "--pick=1", "--format=gif").out


def test_a_clip_that_was_not_picked_is_another_request(empty: World, command: Command):
    argv = empty.manifest({"first": "first.png", "last": "last.png", "name": "x"})
    assert command("sample", *argv).code == 0 and "picked" not in empty.record("x")
    assert "1 made" in command("sample", *argv, "--samples-per-pair=2", "--pick=1").out
    assert "1 made" in command("sample", *argv).out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--pick=1"], "nothing to pick from with 1 samples"),
        (["--samples-per-pair=2", "--pick=3"], "3 of 2 samples cannot be picked"),
        (["--samples-per-pair=2", "--pick=1", "--seed=4294967295"], "seed must be from 0 to 4294967295"),
    ],
)
def test_what_cannot_be_picked_is_one_sentence(empty: World, command: Command, changes: list[str], words: str):
    result = command("sample", *empty.pair(*changes))
    assert result.code == 2 and words in result.err and len(result.errors) == 1
    assert not empty.model.batches and empty.written == set()


def test_shots_are_not_picked(empty: World, command: Command):
    keys = f"--keys=0:{empty.path / 'first.png'},8:{empty.path / 'last.png'}"
    argv = [keys, f"--out={empty.out / 'x.mp4'}", *empty.common, "--samples-per-pair=2", "--pick=1"]
    result = command("sample", *argv)
    assert result.code == 2 and "--pick goes with pairs" in result.err
