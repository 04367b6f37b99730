"""Checkpoint directories: what is written comes back, and nothing half written is taken for whole."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.weights.stored import NETWORK, PARAMS, equal, write
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.notes import collected
from tooncrafter_jax.typing import Device
from tooncrafter_jax.weights import store
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig) -> Path:
    return write(tmp_path_factory.mktemp("store") / "model", tiny_config)


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A checkpoint directory that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "model"))


class TestRoundTrip:
    def test_values_config_and_provenance(self, written: Path, tiny_config: ModelConfig) -> None:
        checkpoint = Checkpoint(written)
        assert checkpoint.config == tiny_config
        assert checkpoint.components == ("autoencoder",)
        assert checkpoint.provenance == {"made": "by a test"}
        equal(checkpoint.restore("autoencoder", NETWORK))

    def test_in_another_dtype(self, written: Path) -> None:
        half = {path: value.astype(jnp.bfloat16) for path, value in PARAMS.items()}
        found = Checkpoint(written).restore("autoencoder", NETWORK, dtype=jnp.bfloat16)
        assert {value.dtype for value in found.values()} == {jnp.dtype(jnp.bfloat16)}
        equal(found, half)

    def test_dtypes_by_parameter(self, written: Path) -> None:
        found = Checkpoint(written).restore(
            "autoencoder", NETWORK, dtype=lambda leaf: jnp.float32 if len(leaf.shape) == 1 else jnp.bfloat16
        )
        assert found["encoder.conv_in.bias"].dtype == jnp.float32
        assert found["encoder.conv_in.kernel"].dtype == jnp.bfloat16

    def test_written_in_half_precision(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        half = {path: value.astype(jnp.bfloat16) for path, value in PARAMS.items()}
        checkpoint = Checkpoint(write(tmp_path / "half", tiny_config, half))
        equal(checkpoint.restore("autoencoder", NETWORK), {p: v.astype(jnp.float32) for p, v in half.items()})

    def test_straight_into_a_sharding(self, written: Path, devices: list[Device]) -> None:
        mesh = Mesh(np.asarray(devices), ("shard",), axis_types=(AxisType.Auto,))
        replicated = NamedSharding(mesh, PartitionSpec())
        by_path = {
            path: NamedSharding(mesh, PartitionSpec(*[None] * (len(leaf.shape) - 1), "shard"))
            if leaf.shape[-1] % 8 == 0
            else replicated
            for path, leaf in NETWORK.abstract_params.items()
        }
        found = Checkpoint(written).restore("autoencoder", NETWORK, sharding=by_path)
        equal(found)
        assert found["encoder.conv_in.kernel"].sharding.is_equivalent_to(by_path["encoder.conv_in.kernel"], 4)
        assert found["encoder.conv_in.kernel"].addressable_shards[0].data.shape == (3, 3, 3, 4)
        everywhere = Checkpoint(written).restore("autoencoder", NETWORK, sharding=replicated)
        assert everywhere["encoder.conv_in.bias"].sharding.device_set == set(devices)

    def test_from_the_host_as_from_a_device(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        """Transposed views, as a conversion makes them, are written as what they show."""
        views = {path: np.asfortranarray(np.asarray(value)) for path, value in PARAMS.items()}
        checkpoint = Checkpoint(write(tmp_path / "host", tiny_config, views))
        equal(checkpoint.restore("autoencoder", NETWORK))
        assert checkpoint.weights == {"autoencoder": store.fingerprint(PARAMS)}

    def test_a_fingerprint_stands_for_the_values(self, written: Path, tmp_path: Path, tiny_config: ModelConfig) -> None:
        name = "moments.bias"
        same = Checkpoint(write(tmp_path / "same", tiny_config))
        other = Checkpoint(write(tmp_path / "other", tiny_config, {**PARAMS, name: PARAMS[name].at[0].add(1e-6)}))
        assert Checkpoint(written).fingerprint == same.fingerprint != other.fingerprint
        with CheckpointWriter(tmp_path / "copied", tiny_config, {}) as writer:
            writer.copy(written, ["autoencoder"])
        assert Checkpoint(tmp_path / "copied").fingerprint == same.fingerprint

    def test_the_directory_may_move(self, copy: Path) -> None:
        moved = copy.with_name("elsewhere")
        copy.rename(moved)
        equal(Checkpoint(moved).restore("autoencoder", NETWORK))


class TestInterruption:
    def test_an_error_leaves_nothing(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "model", tiny_config, then=KeyboardInterrupt)
        assert os.listdir(tmp_path) == []

    def test_a_killed_process_leaves_no_checkpoint(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        """What lies there has another name, and does not disturb the next attempt."""
        CheckpointWriter(tmp_path / "model", tiny_config, {}).write("autoencoder", PARAMS)
        assert len(os.listdir(tmp_path)) == 1
        with pytest.raises(UserError, match="no checkpoint directory"):
            Checkpoint(tmp_path / "model")
        equal(Checkpoint(write(tmp_path / "model", tiny_config)).restore("autoencoder", NETWORK))

    def test_what_killed_writers_left_is_removed(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        """But not what a running process writes, nor what lies there for another directory or from another host."""
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        for name in ("model", "model2", "model-b"):
            CheckpointWriter(tmp_path / name, tiny_config, {})
        running = {path.name for path in tmp_path.iterdir()}
        assert len(running) == 3
        dead = [name.removesuffix(f"-{os.getpid()}") + f"-{ended.pid}" for name in running]
        elsewhere = dead[0].replace(socket.gethostname().replace("-", "_"), "another_host")
        for name in (*dead, elsewhere):
            (tmp_path / name).mkdir()
        CheckpointWriter(tmp_path / "model", tiny_config, {}).__exit__(RuntimeError)
        left = {path.name for path in tmp_path.iterdir()}
        assert running | {elsewhere} <= left
        assert {name for name in dead if name.startswith(".model.")}.isdisjoint(left)
        assert {name for name in dead if not name.startswith(".model.")} <= left

    def test_the_old_returns_if_the_new_cannot_take_its_place(
        self, copy: Path, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Path.rename

        def failing(self: Path, target: Path) -> Path:
            if ".partial-" in self.name:
                raise PermissionError(13, "Permission denied")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(UserError, match=r"model\' cannot be written \(Permission denied\): choose a directory"):
            write(copy, tiny_config, {path: value + 1 for path, value in PARAMS.items()}, overwrite=True)
        equal(Checkpoint(copy).restore("autoencoder", NETWORK))
        assert os.listdir(copy.parent) == [copy.name]

    def test_a_failed_replacement_keeps_the_old(self, copy: Path, tiny_config: ModelConfig) -> None:
        other = {path: value + 1 for path, value in PARAMS.items()}
        with pytest.raises(RuntimeError):
            write(copy, tiny_config, other, then=RuntimeError, overwrite=True)
        equal(Checkpoint(copy).restore("autoencoder", NETWORK))

    def test_overwriting(self, copy: Path, tiny_config: ModelConfig) -> None:
        other = {path: value + 1 for path, value in PARAMS.items()}
        with pytest.raises(UserError, match="exists already: choose another directory, or add --overwrite"):
            write(copy, tiny_config, other)
        equal(Checkpoint(write(copy, tiny_config, other, overwrite=True)).restore("autoencoder", NETWORK), other)
        assert os.listdir(copy.parent) == [copy.name]

    def test_overwriting_keeps_what_somebody_put_there(self, copy: Path, tiny_config: ModelConfig) -> None:
        (copy / "notes.txt").write_text("mine")
        (copy / "clips").mkdir()
        (copy / "clips" / "ab.mp4").write_text("mine")
        write(copy, tiny_config, overwrite=True)
        assert (copy / "notes.txt").read_text() == (copy / "clips" / "ab.mp4").read_text() == "mine"
        abandoned = copy.with_name(f".{copy.name}.old-0-{socket.gethostname().replace('-', '_')}-999999999")
        abandoned.mkdir()
        (abandoned / "more.txt").write_text("mine")
        write(copy, tiny_config, overwrite=True)
        assert (copy / "more.txt").read_text() == "mine" and os.listdir(copy.parent) == [copy.name]

    def test_a_checkpoint_is_back_after_a_kill_between_two_renames(self, copy: Path, tiny_config: ModelConfig) -> None:
        host = socket.gethostname().replace("-", "_")
        retired = copy.with_name(f".{copy.name}.old-0-{host}-999999999")
        copy.rename(retired)
        with collected() as notes:
            equal(Checkpoint(copy).restore("autoencoder", NETWORK))
        assert len(notes) == 1 and "model is back as it was" in notes[0] and os.listdir(copy.parent) == [copy.name]
        copy.rename(retired)
        with pytest.raises(UserError, match="exists already"):  # it is found before anything is written
            write(copy, tiny_config)
        copy.rename(copy.with_name(f".{copy.name}.old-0-{host}-{os.getpid()}"))  # of a process that runs
        with pytest.raises(UserError, match="no checkpoint directory"):
            Checkpoint(copy)

    @pytest.mark.parametrize("there", [True, False])
    def test_what_another_process_wrote_meanwhile_stays(
        self, there: bool, copy: Path, tiny_config: ModelConfig
    ) -> None:
        other = {path: value + 1 for path, value in PARAMS.items()}
        if not there:
            shutil.rmtree(copy)
        writer = CheckpointWriter(copy, tiny_config, {}, overwrite=True)
        writer.write("autoencoder", PARAMS)
        write(copy, tiny_config, other, overwrite=True)
        with pytest.raises(UserError, match="model was written by another process meanwhile: run the same again"):
            writer.__exit__(None)
        equal(Checkpoint(copy).restore("autoencoder", NETWORK), other)
        assert os.listdir(copy.parent) == [copy.name]

    def test_another_programs_model_json_is_never_overwritten(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        (tmp_path / "keras").mkdir()
        (tmp_path / "keras" / "model.json").write_text('{"class_name": "Sequential"}')
        with pytest.raises(UserError, match="is not a checkpoint directory and will not be overwritten"):
            write(tmp_path / "keras", tiny_config, overwrite=True)

    def test_a_directory_of_something_else_is_never_overwritten(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "a.png").write_bytes(b"x")
        with pytest.raises(UserError, match="is not a checkpoint directory and will not be overwritten"):
            write(tmp_path / "photos", tiny_config, overwrite=True)
        assert (tmp_path / "photos" / "a.png").exists()

    def test_a_place_that_cannot_be_written(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(UserError, match="file/model' cannot be written .*: choose another directory"):
            write(tmp_path / "file" / "model", tiny_config)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads outlive a failed read
class TestDamage:
    def change(self, directory: Path, **values: Any) -> None:
        file = directory / "model.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    def test_another_format_version(self, copy: Path) -> None:
        self.change(copy, format_version=2)
        with pytest.raises(UserError, match="has format 2, but this version reads 1: update tooncrafter-jax"):
            Checkpoint(copy)

    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no checkpoint directory"):
            Checkpoint(tmp_path / "model")
        with pytest.raises(UserError, match="has no model.json.*convert first"):
            Checkpoint(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1}'])
    def test_a_damaged_description(self, copy: Path, text: str) -> None:
        (copy / "model.json").write_text(text)
        with pytest.raises(UserError, match="model.json is damaged"):
            Checkpoint(copy)

    def test_a_config_key_that_does_not_exist(self, copy: Path) -> None:
        self.change(copy, config={"unet": {"widht": 64}})
        with pytest.raises(UserError, match="has no key 'widht'; did you mean 'width'"):
            Checkpoint(copy)

    def test_a_config_of_sizes_that_cannot_be(self, copy: Path) -> None:
        self.change(copy, config={"unet": {"width": 50}})
        with pytest.raises(UserError, match="the config in .*model.json: unet has 50 channels"):
            Checkpoint(copy)

    def test_a_missing_component(self, copy: Path) -> None:
        with pytest.raises(UserError, match="holds no unet, image_projector, clip_text, clip_image, decoder: convert"):
            Checkpoint(copy).require()
        shutil.rmtree(copy / "autoencoder")
        with pytest.raises(UserError, match="autoencoder in .* is damaged or incomplete"):
            Checkpoint(copy).restore("autoencoder", NETWORK)

    def test_a_tree_without_its_description(self, copy: Path) -> None:
        (copy / "autoencoder" / "_METADATA").unlink()
        with pytest.raises(UserError, match="is damaged or incomplete|does not fit"):
            Checkpoint(copy).restore("autoencoder", NETWORK)

    @pytest.mark.parametrize("spoil", ["removed", "cut", "overwritten"])
    def test_damaged_values(self, copy: Path, spoil: str) -> None:
        """Every file with values is spoilt, wherever orbax puts them."""
        files = [path for path in (copy / "autoencoder").rglob("*") if path.is_file() and path.parent.name == "d"]
        assert files
        for path in files:
            content = path.read_bytes()
            if spoil == "removed":
                path.unlink()
            else:
                path.write_bytes(content[: len(content) // 2] if spoil == "cut" else bytes(len(content)))
        with pytest.raises(UserError, match="is damaged or incomplete: convert it again"):
            Checkpoint(copy).restore("autoencoder", NETWORK)

    def test_a_full_memory_is_no_damage(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def restore(*_: Any, **__: Any) -> Any:
            raise RuntimeError("Encountered error") from jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9437184 bytes."
            )

        monkeypatch.setattr(store.ocp.Checkpointer, "restore", restore)
        with pytest.raises(UserError, match="the device has too little memory to load autoencoder in .*bfloat16"):
            Checkpoint(copy).restore("autoencoder", NETWORK)

    def test_all_that_does_not_fit_is_listed(self, tmp_path: Path, tiny_config: ModelConfig) -> None:
        params = dict(PARAMS)
        del params["moments.bias"]
        params["moments.alpha"] = jnp.zeros(3)
        params["encoder.conv_in.bias"] = jnp.zeros(16)
        checkpoint = Checkpoint(write(tmp_path / "model", tiny_config, params))
        with pytest.raises(UserError) as error:
            checkpoint.restore("autoencoder", NETWORK)
        for part in (
            "1 missing: moments.bias",
            "1 unexpected: moments.alpha",
            r"1 of another shape: encoder.conv_in.bias is 16 instead of 32",
        ):
            assert part in str(error.value)


class TestFiles:
    """Components as safetensors files."""

    @pytest.fixture
    def files(self, tmp_path: Path, tiny_config: ModelConfig) -> Path:
        views = {path: np.asfortranarray(np.asarray(value)) for path, value in PARAMS.items()}
        return write(tmp_path / "files", tiny_config, views, safetensors=True)

    def test_what_is_written_comes_back(self, files: Path, devices: list[Device]) -> None:
        assert sorted(path.name for path in files.iterdir()) == ["autoencoder.safetensors", "model.json"]
        checkpoint = Checkpoint(files)
        equal(checkpoint.restore("autoencoder", NETWORK))
        assert checkpoint.weights == {"autoencoder": store.fingerprint(PARAMS)}
        everywhere = NamedSharding(Mesh(np.asarray(devices), ("shard",)), PartitionSpec())
        found = checkpoint.restore("autoencoder", NETWORK, sharding=everywhere, dtype=jnp.bfloat16)
        equal(found, {path: value.astype(jnp.bfloat16) for path, value in PARAMS.items()})
        assert found["moments.bias"].sharding.device_set == set(devices)

    def test_they_are_taken_over_as_they_are(self, files: Path, tmp_path: Path, tiny_config: ModelConfig) -> None:
        with CheckpointWriter(tmp_path / "copied", tiny_config, {}) as writer:
            writer.copy(files, ["autoencoder"])
        equal(Checkpoint(tmp_path / "copied").restore("autoencoder", NETWORK))

    def test_what_is_damaged_or_does_not_fit_is_reported(
        self, files: Path, tmp_path: Path, tiny_config: ModelConfig
    ) -> None:
        other = write(tmp_path / "other", tiny_config, {"a": np.zeros(3)}, safetensors=True)
        with pytest.raises(UserError, match="autoencoder in .*other"):
            Checkpoint(other).restore("autoencoder", NETWORK)
        file = files / "autoencoder.safetensors"
        file.write_bytes(file.read_bytes()[:-8])
        with pytest.raises(UserError, match="autoencoder in .* is damaged or incomplete"):
            Checkpoint(files).restore("autoencoder", NETWORK)


def test_host_arrays_are_written_without_a_copy(tmp_path: Path, tiny_config: ModelConfig) -> None:
    """A copy of the published U-Net would take 5.4 GiB."""
    params = {"a.kernel": np.ones((2**22,), np.float32)}
    with CheckpointWriter(tmp_path / "model", tiny_config, {}) as writer:
        tracemalloc.start()
        try:
            writer.write("unet", params)
            assert tracemalloc.get_traced_memory()[1] < params["a.kernel"].nbytes / 4
        finally:
            tracemalloc.stop()
