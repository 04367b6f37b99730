"""Several hosts: every mesh gives every device its rows, and axes that cross hosts change nothing but who computes
what.
"""

import numpy as np
import pytest

from tests.training.hosts import BATCH, all_rows, assert_replicas_are_equal, place, train

pytestmark = pytest.mark.gate

IN_TURN = [0, 1, 2, 3]
MESHES = [
    ("data:4", IN_TURN),
    ("fsdp:4", IN_TURN),
    ("data:2,frames:2", IN_TURN),
    ("frames:4", IN_TURN),
    ("tensor:4", IN_TURN),
    ("data:4", [0, 2, 1, 3]),  # rows of a process that are not neighbours
    ("data:2,frames:2", [0, 2, 1, 3]),  # all frames of a row on two processes
    ("fsdp:2,tensor:2", [3, 0, 1, 2]),
]


@pytest.fixture(scope="module")
def alone(clips, tmp_path_factory):
    """What one process sees on one device."""
    (seen,) = place(clips, tmp_path_factory.mktemp("alone"), [("data:1", [0])], processes=1, devices=1)
    return all_rows(seen)


def test_every_mesh_over_two_processes_gives_the_batches_of_one(clips, alone, tmp_path):
    for (text, order), seen in zip(MESHES, place(clips, tmp_path, MESHES, processes=2, devices=2), strict=True):
        assert all_rows(seen) == alone, f"{text} on devices {order}"
        rows = {key.split()[1] for key in alone[0]}
        assert rows == {str(row) for row in range(BATCH)}


def test_frames_shared_by_two_processes_train_as_one(clips, tmp_path):
    """Float32 sums in another order: losses differ by rounding, which three steps of Adam let grow to no more than
    1e-5.
    """
    (alone,), two = (
        train(clips, tmp_path / f"{processes}", f"frames:{processes}", processes=processes) for processes in (1, 2)
    )
    assert all_rows(two) == alone.rows
    for process in two:
        np.testing.assert_allclose(process.losses, alone.losses, rtol=1e-5)
    assert assert_replicas_are_equal(two) > 100
