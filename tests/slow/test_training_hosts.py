"""Every stage over two processes, which stand for hosts, by every axis of the mesh (make test-slow)."""

import json
from typing import Any

import numpy as np
import pytest

from tests.training.hosts import all_rows, assert_replicas_are_equal, train
from tests.training.small import MODEL_CHANGES, NARROW_CHANGES, SIZE, make_clips

pytestmark = pytest.mark.slow

MESHES = [("data:2", 1), ("fsdp:2", 1), ("frames:2", 1), ("tensor:2", 1), ("data:2,frames:2", 2)]
"""A mesh, and how many devices each of the two processes has."""
EIGHTH = NARROW_CHANGES | {name: MODEL_CHANGES[name] for name in ("height", "width", "autoencoder", "decoder")}
WHOLE_PICTURES = {"model_changes": EIGHTH, "data": {"height": SIZE, "width": SIZE}}
"""Latents of an eighth of the pictures, as sketches need, and pictures that the discriminator does not shrink to
nothing.
"""
STAGES: dict[str, dict[str, Any]] = {
    "rectify": {},
    "lora": {"options": {"lora": {"rank": 2}}},
    # Without the adversary, whose ratio of gradients would amplify rounding.
    "decoder": {"stage": "decoder", "options": {"discriminator": {"start_step": 100}}} | WHOLE_PICTURES,
    "sketch": {"stage": "sketch"} | WHOLE_PICTURES,
}
CASES = [("rectify", *mesh) for mesh in MESHES]
CASES += [(stage, *mesh) for stage in STAGES for mesh in MESHES[2:5:2] if stage != "rectify"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def alone(clips, tmp_path_factory):
    """Stage -> what one process sees on one device."""
    found = {}

    def of(stage):
        if stage not in found:
            (found[stage],) = train(clips, tmp_path_factory.mktemp(stage), "data:1", **STAGES[stage])
        return found[stage]

    return of


@pytest.mark.parametrize(("stage", "mesh", "devices"), CASES)
def test_two_processes_train_as_one(clips, alone, tmp_path, stage, mesh, devices):
    """The batches to the bit; losses to 1e-5, as float32 sums in another order round otherwise."""
    expected = alone(stage)
    seen = train(clips, tmp_path, mesh, processes=2, devices=devices, **STAGES[stage])
    assert all_rows(seen) == expected.rows
    compared = assert_replicas_are_equal(seen)
    assert compared > (20 if mesh == "fsdp:2" else 100)
    largest = max(np.max(np.abs(np.divide(process.losses, expected.losses) - 1)) for process in seen)
    losses = " ".join(f"{loss:.6f}" for loss in seen[1].losses)
    print(f"\n{stage:<8} {mesh:<16} {losses}   largest difference {largest:.1e}, {compared} replicas equal")
    assert largest <= 1e-5


def test_micro_batches_of_two_processes(clips, tmp_path):
    """Cut into two, a batch whose rows and frames lie on both processes trains as uncut; without dropout, which is
    drawn anew.
    """
    still: dict[str, Any] = {"model_changes": NARROW_CHANGES | {"unet": NARROW_CHANGES["unet"] | {"dropout": 0.0}}}
    (whole,) = train(clips, tmp_path / "whole", "data:1", **still)
    parts = train(clips, tmp_path / "parts", "data:2,frames:2", processes=2, devices=2, accumulation=2, **still)
    for process in parts:
        np.testing.assert_allclose(process.losses, whole.losses, rtol=1e-5)


def test_validation_samples_and_another_number_of_processes(clips, tmp_path):
    """A run on two processes goes on in one; what is validated and drawn meanwhile is what one process says."""
    settings: dict[str, Any] = {
        "validation": "test",
        "validate_every": 2,
        "validation_batches": 2,
        "sample_every": 2,
        "save_every": 2,
    }
    (whole,) = train(clips, tmp_path / "one", "data:1", steps=4, **settings)
    first = train(clips, tmp_path / "two", "data:2,frames:2", processes=2, devices=2, steps=2, **settings)
    (rest,) = train(clips, tmp_path / "two", "data:1", steps=4, **settings)
    assert [*all_rows(first), *rest.rows] == whole.rows
    np.testing.assert_allclose([*first[0].losses, *rest.losses], whole.losses, rtol=1e-5)
    one, two = (_validated(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys() == {0, 2, 4}
    for step, loss in one.items():
        assert two[step] == pytest.approx(loss, rel=1e-5)
    names = sorted(path.name for path in (tmp_path / "one" / "samples").iterdir())
    assert names and sorted(path.name for path in (tmp_path / "two" / "samples").iterdir()) == names


def _validated(workdir):
    """Validation losses by step."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation/loss"] for line in lines if "validation/loss" in line}
