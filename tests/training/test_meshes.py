"""Meshes: where the axes lie, what "auto" stands for, and which rows a host loads."""

import dataclasses
import json

import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

from tests.training.small import config
from tooncrafter_jax.__main__ import main
from tooncrafter_jax.cli.config_options import read_config
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.planning.topologies import has_tpu_compiler, parse_topology, topology_devices
from tooncrafter_jax.planning.utilisation import peak_of
from tooncrafter_jax.runtime import distributed
from tooncrafter_jax.runtime.distributed import least_of_all_processes
from tooncrafter_jax.training import run_mesh as run_mesh_module
from tooncrafter_jax.training.run_mesh import least_memory, run_mesh
from tooncrafter_jax.training.sharding import (
    AXES,
    automatic_mesh,
    bytes_a_device,
    check_frames,
    make_mesh,
    process_rows,
    put_batch,
)
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.training.state import abstract_state


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU that is not there: hosts of eight, each of which XLA calls a slice."""

    id: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"

    @property
    def process_index(self):
        """Its host."""
        return self.id // 8

    slice_index = process_index


GPUS = [Gpu(number) for number in range(16)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("fsdp:16", [range(8), range(8, 16)]),
        ("data:2,fsdp:8", [range(8), range(8, 16)]),
        ("fsdp:4,tensor:4", [range(8), range(8, 16)]),
        ("frames:16", [range(16), range(16)]),
        ("tensor:8,frames:2", [range(16), range(16)]),
    ],
)
def test_hosts_of_gpus_hold_no_axis_of_their_own(text, rows):
    mesh = make_mesh(text, GPUS)
    assert [process_rows(mesh, 16, host).tolist() for host in (0, 1)] == [list(own) for own in rows]


def test_rows_of_a_host_need_not_be_neighbours():
    in_turn = np.asarray([GPUS[i] for i in (0, 8, 1, 9, 2, 10, 3, 11)], object).reshape(4, 2, 1, 1)
    mesh = Mesh(in_turn, AXES, axis_types=(AxisType.Auto,) * 4)
    assert [process_rows(mesh, 16, host).tolist() for host in (0, 1)] == [
        [0, 1, 4, 5, 8, 9, 12, 13],
        [2, 3, 6, 7, 10, 11, 14, 15],
    ]


def test_rows_that_a_process_did_not_load_are_missed(devices):
    with pytest.raises(ValueError, match="hold 8 rows of a batch of 8, but 4 were loaded"):
        put_batch({"seed": np.arange(4)}, make_mesh("data:4,frames:2", devices), 8)


# ---------------------------------------------------------------------------------------------------------- mesh="auto"


@pytest.fixture(scope="module")
def full_size():
    """The published model's state in its shapes: 14.5 GB on every device that holds all of it, and 3.5 of gradients."""
    read = read_config("configs/rectify_512.py", [])
    return abstract_state(make_stage(read, architecture(read)))


@pytest.mark.parametrize(
    ("gigabytes", "mesh"),
    [(40, "data:8,fsdp:1"), (24, "data:4,fsdp:2"), (16, "data:2,fsdp:4"), (1, "data:1,fsdp:8"), (None, "data:8")],
)
@pytest.mark.gate
def test_auto_shares_the_state_as_far_as_it_must(devices, full_size, gigabytes, mesh):
    memory = None if gigabytes is None else gigabytes * 1e9
    assert automatic_mesh(full_size, devices, memory) == mesh


def test_a_share_of_the_full_size_state(devices, full_size):
    whole, quarter = (bytes_a_device(full_size, make_mesh(text, devices[:4])) for text in ("data:4", "fsdp:4"))
    assert 14e9 < whole < 15e9
    assert whole / 4 <= quarter < 1.02 * whole / 4


def test_auto_is_all_data_on_cpus(devices):
    settings = config("", mesh="auto")
    assert run_mesh(settings, architecture(settings)).shape["data"] == 8
    assert run_mesh(settings, architecture(settings), devices[:4], 1e6).shape["fsdp"] == 4


@pytest.mark.parametrize(
    ("own", "of_all", "least"),
    [([80e9, 79e9], [79e9, 40e9], 40e9), ([80e9, None], [80e9], None), ([80e9], [80e9, None], None)],
)
def test_all_hosts_reckon_with_the_smallest_device(monkeypatch, own, of_all, least):
    """Or their automatic meshes would differ."""
    mebibytes = [-1 if memory is None else int(memory // 2**20) for memory in of_all]
    monkeypatch.setattr(run_mesh_module, "device_memory", lambda memory: memory)
    monkeypatch.setattr(run_mesh_module.jax, "local_devices", lambda: own)
    monkeypatch.setattr(run_mesh_module, "least_of_all_processes", lambda value: min(value, *mebibytes))
    found = least_memory()
    assert found == (None if least is None else least // 2**20 * 2**20)


def test_the_smallest_of_several_processes(monkeypatch):
    assert least_of_all_processes(7) == 7
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda value: np.stack([value, value - 3]))
    assert least_of_all_processes(7) == 4


def test_a_mesh_that_cannot_share_a_clip_is_told(devices):
    check_frames(16, make_mesh("data:4,frames:2", devices))
    with pytest.raises(UserError, match=r"config.data.frames is 15, which must be a multiple of 2"):
        check_frames(15, make_mesh("data:4,frames:2", devices))


# ----------------------------------------------------------------------------------------------------------------- plan


def test_hosts_of_a_plan(devices, capsys, tmp_path):
    arguments = ["plan", "--config=configs/tiny.py:rectify", "--topology=cpu:8", "--config.mesh=data:2,frames:4"]
    for _ in range(2):  # its own file is written again
        assert main([*arguments, "--config.data.batch=8", "--hosts", f"--json={tmp_path / 'hosts.json'}"]) == 0
        assert "host 0   8 devices     8 rows  0-7" in capsys.readouterr().out
    assert json.loads((tmp_path / "hosts.json").read_text())["hosts"] == {"0": [*range(8)]}
    with pytest.raises(UserError, match="--hosts and --sampling do not go together"):
        main([*arguments, "--hosts", "--sampling"])


def test_several_slices_are_counted():
    found = parse_topology("2xv5e:8x8")
    assert (found.devices, found.slices, found.platform) == (128, 2, "tpu")
    for text in ("2xcpu:4", "0xv5e:4x4", "2xv5e:4", "2x:4x4"):
        with pytest.raises(UserError, match="--topology is"):
            parse_topology(text)


TABLE = [
    ("v5e:8x8", "data:8,fsdp:8", 64, 1),
    ("v5e:8x8", "data:4,fsdp:8,frames:2", 32, 1),
    ("v5e:8x8", "data:2,fsdp:8,frames:4", 32, 2),
    ("v5p:4x4x4", "data:4,fsdp:4,frames:4", 32, 2),
    ("v5p:4x4x4", "data:4,fsdp:4,tensor:4", 32, 2),
    ("v6e:16x16", "data:32,fsdp:8", 256, 1),
    ("2xv5e:8x8", "data:8,fsdp:8,frames:2", 64, 1),
    ("2xv5e:8x8", "fsdp:64,frames:2", 64, 1),
]
"""Topology, mesh, batch, and how many hosts load a row at least."""


@pytest.mark.slow
@pytest.mark.skipif(not has_tpu_compiler(), reason="needs the extra 'tpu'")
@pytest.mark.parametrize(("topology", "text", "batch", "least"), TABLE)
def test_hosts_of_tpu_slices(topology, text, batch, least):
    """Every device's rows are loaded by its own host, whatever the layout; no host loads a row that it does not
    need.
    """
    mesh = make_mesh(text, topology_devices(parse_topology(topology)))
    assert dict(mesh.shape) == dict.fromkeys(AXES, 1) | {a: int(n) for a, n in (p.split(":") for p in text.split(","))}
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    needed: dict[int, set[int]] = {}
    for place in np.ndindex(mesh.devices.shape):
        share = place[0] * mesh.shape["fsdp"] + place[1]
        rows = range(share * batch // shares, (share + 1) * batch // shares)
        needed.setdefault(mesh.devices.item(place).process_index, set()).update(rows)
    assert {host: sorted(rows) for host, rows in needed.items()} == {
        host: process_rows(mesh, batch, host).tolist() for host in needed
    }
    assert min(sum(row in rows for rows in needed.values()) for row in range(batch)) >= least
    if parse_topology(topology).slices > 1:
        slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        assert all(len(set(part.ravel())) == 1 for share in slices.reshape(shares, -1) for part in [share])


@pytest.mark.slow
@pytest.mark.skipif(not has_tpu_compiler(), reason="needs the extra 'tpu'")
def test_real_slices_cannot_share_frames():
    with pytest.raises(UserError, match="make data a multiple of 2"):
        make_mesh("frames:16", topology_devices(parse_topology("2xv5e:2x4")))


@dataclasses.dataclass(frozen=True)
class Tpu:
    """A TPU that is not there: slices of 2 x 2 chips, each slice a host."""

    id: int
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0

    @property
    def slice_index(self):
        """Its slice."""
        return self.id // 4

    process_index = slice_index

    @property
    def coords(self):
        """Its place in the slice."""
        return (self.id % 2, self.id // 2 % 2, 0)


TPUS = [Tpu(number) for number in range(8)]


@pytest.mark.parametrize(
    ("text", "axis"), [("data:2,fsdp:2,frames:2", 0), ("data:2,frames:4", 0), ("data:2,tensor:4", 0), ("fsdp:8", 1)]
)
def test_slices_lie_along_the_outermost_axis_that_they_can_share(text, axis):
    """A slice is a block of the axis, so that all else is exchanged inside it."""
    in_turn = [TPUS[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    mesh = make_mesh(text, in_turn)
    assert {device.id for device in mesh.devices.ravel()} == set(range(8))
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert [set(half.ravel()) for half in np.split(slices, 2, axis)] == [{0}, {1}]
    rows = [process_rows(mesh, 16, host).tolist() for host in (0, 1)]
    assert rows == [[*range(8)], [*range(8, 16)]]


@pytest.mark.parametrize("text", ["frames:8", "tensor:8", "tensor:2,frames:4", "fsdp:1,frames:8"])
def test_slices_cannot_share_what_is_exchanged_most(text):
    with pytest.raises(UserError, match="is for 2 slices, but only data and fsdp .*: make data a multiple of 2"):
        make_mesh(text, TPUS)


# ---------------------------------------------------------------------------------------------------------- utilisation


def test_peaks_are_those_of_the_kind_itself():
    """An L40S is no L4, and an A100 no A10."""
    known = {"NVIDIA A10": 125, "NVIDIA A10G": 70, "NVIDIA A100-SXM4-40GB": 312, "NVIDIA L4": 121, "NVIDIA L40S": 362}
    known |= {"NVIDIA H100 80GB HBM3": 989, "NVIDIA H100 PCIe": 756, "NVIDIA B200": 2250, "TPU7x": 1153.5}
    known |= {"TPU v5 lite": 197, "TPU v5": 459, "TPU v5p": 459}
    assert {kind: peak_of(kind) for kind in known} == {kind: peak * 1e12 for kind, peak in known.items()}
    assert peak_of("NVIDIA L400") is None and peak_of("cpu") is None
