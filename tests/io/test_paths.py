"""Paths in buckets: what can be there is written and read there, and the rest says so; no folder is ever named
`gs:`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.buckets import Disk, memory_behind_gs
from tests.training.small import config
from tooncrafter_jax.__main__ import main as program
from tooncrafter_jax.cli.common import run
from tooncrafter_jax.cli.config_options import read_config
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.data.embeddings import EmbeddingSource
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.paths import Mirror, any_path, copy_tree, local_path, url_of
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.sampling.model_loading import find_checkpoint
from tooncrafter_jax.training.checkpoints import Checkpoints, export
from tooncrafter_jax.training.reporting import Reporter
from tooncrafter_jax.training.sharding import make_mesh
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture, start_checkpoints
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

ROOT = Path(__file__).parents[2]
NETWORK = tiny().networks()["image_projector"]


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An empty bucket behind gs://, while the working directory is an empty one, which stays empty."""
    monkeypatch.chdir(tmp_path)
    with memory_behind_gs() as files:
        yield files
    assert not list(tmp_path.iterdir())


def test_a_url_is_a_url_whatever_pathlib_made_of_it():
    assert url_of("gs://b/x") == url_of(Path("gs://b/x")) == "gs://b/x"
    assert url_of("b/x") is url_of(Path("/gs/x")) is url_of("/tmp/a://b") is None
    assert any_path("b/x") == Path("b/x").absolute() and local_path("b/x") == Path("b/x")
    assert any_path("file:///tmp/x") == local_path("file:///tmp/x") == Path("/tmp/x")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://b/x", r"needs the package 'gcsfs', which is not installed: pip install 'tooncrafter-jax\[gcs\]'"),
        ("s3://b/x", "needs the package 's3fs'"),
        ("gss://b/x", "has the scheme 'gss', which is unknown"),
        ("az://b/x", "the schemes gs:// and s3:// can"),
    ],
)
def test_a_url_that_nothing_opens_is_reported(url, message):
    with pytest.raises(UserError, match=message):
        any_path(url)


def test_a_bucket_that_cannot_be_reached_is_reported(bucket, monkeypatch):
    def fail(self, path, **settings):
        raise PermissionError("no such account")

    monkeypatch.setattr(bucket, "info", fail)
    monkeypatch.setattr(bucket, "exists", fail)
    with pytest.raises(UserError, match=r"'gs://b/x' cannot be reached \(no such account\)"):
        any_path("gs://b/x")


def test_a_scheme_may_stand_for_a_directory(tmp_path):
    Disk.root = str(tmp_path)
    assert any_path("disk://a/b") == tmp_path / "a" / "b"


def test_a_run_is_kept_where_a_scheme_says(tmp_path, monkeypatch):
    """The checkpoints and the config of a run, whose start and workdir are URLs, and what it exports."""
    monkeypatch.chdir(tmp_path)
    Disk.root = str(tmp_path / "disk")
    settings = config(tmp_path, "autoencoder", groups=("autoencoder",), options={"discriminator": {"width": 8}})
    model = make_stage(settings, architecture(settings)).model
    with CheckpointWriter("disk://begin", model, {}) as writer:
        for name in ("autoencoder", "decoder"):
            shapes = model.networks()[name].abstract_params
            writer.write(name, {path: np.full(leaf.shape, 0.01, np.float32) for path, leaf in shapes.items()})
    settings = dataclasses.replace(settings, start="disk://begin", model_changes={})
    mesh = make_mesh("data:1", jax.devices()[:1])
    stage = make_stage(settings, architecture(settings), mesh)
    checkpoints = Checkpoints("disk://run", stage)
    state = checkpoints.start.state(mesh)
    checkpoints.save(state, {"examples": 0}, wait=True)
    checkpoints.close()
    again = Checkpoints("disk://run", stage)
    resumed = again.restore(mesh)
    again.close()
    assert resumed.data == {"examples": 0}
    export(any_path("disk://run/export"), stage, resumed.state, model=stage.model, provenance={})
    assert set(Checkpoint("disk://run/export").components) == {"autoencoder", "decoder"}
    assert {path.name for path in (tmp_path / "disk" / "run").iterdir()} == {"checkpoints", "config.json", "export"}
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_a_file_is_written_to_a_bucket(bucket):
    write_atomically("gs://b/some/file.json", b"{}")
    assert any_path("gs://b/some/file.json").read_bytes() == b"{}"


def test_a_mirror_copies_what_changes_and_goes_on_where_files_ended(bucket):
    place = any_path("gs://b/logs")
    with Mirror(place) as mirror:
        (mirror.local / "deep").mkdir()
        (mirror.local / "deep" / "one").write_text("1")
        (mirror.local / "lines").write_text("first\n")
        mirror.sync()
        assert (place / "deep" / "one").read_text() == "1"
        (mirror.local / "lines").write_text("first\nsecond\n")
        mirror.sync(every=1000.0)
        assert (place / "lines").read_text() == "first\n"
    assert (place / "lines").read_text() == "first\nsecond\n" and not mirror.local.exists()
    with Mirror(place, fetch=["lines", "missing"]) as mirror, (mirror.local / "lines").open("a") as lines:
        lines.write("third\n")
    assert (place / "lines").read_text() == "first\nsecond\nthird\n" and (place / "deep" / "one").exists()


def test_a_bucket_that_cannot_be_written_for_a_while_is_tried_again(bucket, monkeypatch, caplog):
    def fail(self, path, **settings):
        raise PermissionError("not now")

    with Mirror(any_path("gs://b/logs")) as mirror:
        (mirror.local / "lines").write_text("first\n")
        with monkeypatch.context() as broken:
            broken.setattr(bucket, "open", fail)
            mirror.sync(every=1e-9)
            assert "'gs://b/logs' cannot be written (not now): trying again" in caplog.text
            with pytest.raises(UserError, match="cannot be written"):
                mirror.sync()
    assert any_path("gs://b/logs/lines").read_text() == "first\n"


def test_metrics_go_to_a_bucket_and_go_on_there(bucket):
    for step in (1, 2):
        reporter = Reporter(any_path("gs://b/run"), steps=2, done=step - 1, clips=1)
        reporter.write(step, {"loss": 1.0 / step})
        reporter.close()
    lines = any_path("gs://b/run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert all("tfevents" in path.name for path in any_path("gs://b/run/tensorboard").iterdir())


def test_a_config_is_read_from_a_bucket_with_its_variant(bucket):
    for name in ("rectify_512", "rectify_512_variants"):
        text = (ROOT / "configs" / f"{name}.py").read_text()
        any_path(f"gs://b/{name}.py").write_text(text)
    assert read_config("gs://b/rectify_512.py", ["--config.steps=7"]).steps == 7
    with pytest.raises(UserError, match="there is no config file 'gs://b/nowhere.py'"):
        read_config("gs://b/nowhere.py:iii", [])
    with pytest.raises(UserError, match="the config 'gs://b/rectify_512.py:no' cannot be used"):
        read_config("gs://b/rectify_512.py:no", [])
    assert read_config("gs://b/rectify_512_variants.py:v", []).groups == ("projector",)


def write(directory, seed, **settings):
    draw = np.random.default_rng(seed)
    params = {path: draw.normal(size=leaf.shape).astype("f4") for path, leaf in NETWORK.abstract_params.items()}
    with CheckpointWriter(directory, tiny(), {"seed": seed}, safetensors=True, **settings) as writer:
        writer.write("image_projector", params)
    return params


def assert_holds(directory, params):
    checkpoint = Checkpoint(directory)
    for found in (
        checkpoint.restore_on_host("image_projector", NETWORK),
        checkpoint.restore("image_projector", NETWORK),
    ):
        assert found.keys() == params.keys()
        assert all(np.array_equal(params[path], np.asarray(found[path])) for path in params)


def test_a_model_is_written_to_a_bucket_and_read_from_it(bucket):
    first = write("gs://b/model", 1)
    assert_holds("gs://b/model", first)
    assert find_checkpoint("gs://b/model", ["image_projector"]).fingerprint
    with pytest.raises(UserError, match="gs://b/model exists already"):
        write("gs://b/model", 2)
    second = write("gs://b/model", 2, overwrite=True)
    assert_holds("gs://b/model", second)
    with CheckpointWriter("gs://b/copy", tiny(), {}) as writer:
        writer.copy(any_path("gs://b/model"), ["image_projector"])
    assert_holds("gs://b/copy", second)
    started = start_checkpoints(config("nowhere", start="gs://b/copy, gs://b/model"))
    assert [str(one.directory) for one in started] == ["gs://b/copy", "gs://b/model"]
    with pytest.raises(RuntimeError), CheckpointWriter("gs://b/model", tiny(), {}, overwrite=True) as writer:
        raise RuntimeError
    with pytest.raises(
        UserError, match="gs://b/model is not a checkpoint directory|no checkpoint directory gs://b/model"
    ):
        Checkpoint("gs://b/model")


def test_a_model_that_is_a_tree_goes_to_a_bucket_and_back(bucket, tmp_path_factory):
    here, back = tmp_path_factory.mktemp("models") / "here", tmp_path_factory.mktemp("models") / "back"
    params = {path: np.ones(leaf.shape, "f4") for path, leaf in NETWORK.abstract_params.items()}
    with CheckpointWriter(here, tiny(), {}) as writer:
        writer.write("image_projector", params)
    copy_tree(here, any_path("gs://b/model"))
    copy_tree(any_path("gs://b/model"), back)
    assert_holds(back, params)


def test_clips_and_embeddings_are_read_from_a_disk_only(bucket):
    for opened in (ClipSet, EmbeddingSource):
        with pytest.raises(UserError, match="'gs://b/clips' cannot be a URL here: give a path of this machine"):
            opened("gs://b/clips")


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "--first=a.png", "--last=b.png", "--out=gs://b/out.mp4"],
        ["sample", "--first=gs://b/a.png", "--last=b.png", "--out=out.mp4"],
        ["curate", "films", "films", "--out=gs://b/set"],
        ["evaluate", "gs://b/set", "--out=report"],
        ["evaluate", "set", "--out=gs://b/report"],
        ["convert", "gs://b/model.ckpt", "model"],
        ["convert", "model.ckpt", "s3://b/model"],
        ["compact", "gs://b/model", "small"],
        ["curate", "embed", "gs://b/set", "--model=model"],
    ],
)
def test_a_command_that_cannot_use_a_url_says_so(bucket, capsys, arguments):
    assert run(program, arguments) == 2
    message = capsys.readouterr().err
    assert "cannot be a URL here: give a path of this machine" in message and message.count("\n") == 1
