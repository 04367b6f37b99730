"""Embeddings that are trained on: of the run's own encoders, and only where a stage can use them."""

import json

import jax
import numpy as np
import pytest

from tests.training.small import config
from tooncrafter_jax.data.embeddings import ENCODERS, FORMAT_VERSION, SETTINGS_FILE, weights_digest
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import collected
from tooncrafter_jax.training import embedded
from tooncrafter_jax.training.embedded import check_encoders
from tooncrafter_jax.training.sharding import make_mesh
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.decoder import Decoder
from tooncrafter_jax.training.stages.encoding import drawn_latents
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.training.trainer import Trainer


def encoders(number):
    """Component -> path -> parameter, of a model with this number."""
    draw = np.random.default_rng(number)
    return {name: {"conv.kernel": draw.normal(size=(3, 8)).astype(np.float32)} for name in ENCODERS}


def by_path(params, names=ENCODERS):
    """As a run holds them, beside parameters of something else."""
    found = {f"{name}.{path}": jax.numpy.asarray(value) for name in names for path, value in params[name].items()}
    return found | {"unet.conv.kernel": jax.numpy.ones((2, 2))}


@pytest.fixture
def mesh(devices):
    return make_mesh("data:8", devices)


@pytest.fixture
def directory(tmp_path):
    """Of embeddings by model 0."""
    params = encoders(0)
    settings = {
        "format": FORMAT_VERSION,
        "weights": weights_digest(params),
        "weights_of": {name: weights_digest(params, (name,)) for name in ENCODERS},
    }
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize("names", [ENCODERS, ("autoencoder",)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_embeddings_of_the_runs_own_encoders_are_trained_on(directory, mesh, names, dtype):
    params = {path: value.astype(dtype) for path, value in by_path(encoders(0), names).items()}
    with collected() as said:
        check_encoders(str(directory), params, mesh)
    assert not said


@pytest.mark.parametrize("names", [ENCODERS, ("autoencoder",)])
def test_embeddings_of_another_model_are_refused(directory, mesh, names):
    with pytest.raises(UserError, match="were made with another autoencoder.* than config.start gives"):
        check_encoders(str(directory), by_path(encoders(1), names), mesh)


def test_every_host_refuses_what_one_refuses(directory, mesh, monkeypatch):
    asked = []
    monkeypatch.setattr(embedded, "as_all_processes_say", lambda answers: asked.append(answers) or [False])
    with pytest.raises(UserError, match="were made with another autoencoder"):
        check_encoders(str(directory), by_path(encoders(0)), mesh)
    assert asked == [[True]]


def test_earlier_embeddings_do_not_tell_of_the_autoencoder_alone(directory, mesh):
    settings = json.loads((directory / SETTINGS_FILE).read_text())
    del settings["weights_of"]
    (directory / SETTINGS_FILE).write_text(json.dumps(settings))
    check_encoders(str(directory), by_path(encoders(0)), mesh)
    with collected() as said:
        check_encoders(str(directory), by_path(encoders(1), ("autoencoder",)), mesh)
    assert len(said) == 1 and "do not tell which autoencoder" in said[0]


@pytest.mark.parametrize(
    ("stage", "groups", "message"),
    [
        ("base", ("spatial", "clip_text"), "config.groups has 'clip_text', which learns nothing where config.data.emb"),
        ("base", ("clip_image",), "config.groups has 'clip_image'"),
        ("autoencoder", (), "the stage 'autoencoder' cannot learn from embeddings"),
        ("motion", (), "the stage 'motion' cannot learn from embeddings"),
    ],
)
def test_what_embeddings_cannot_train_is_refused(tmp_path, stage, groups, message):
    settings = config(tmp_path, stage, groups=groups, data={"embeddings": "some"})
    with pytest.raises(UserError, match=message):
        make_stage(settings, architecture(settings))


def test_latents_come_from_embedded_moments(tmp_path):
    """Of the decoder's stage too; the autoencoder is not asked."""
    settings = config(tmp_path, "decoder", data={"embeddings": "some"})
    stage = make_stage(settings, architecture(settings))
    assert isinstance(stage, Decoder)
    moments = np.random.default_rng(0).normal(size=(1, 4, 2, 2, 8)).astype(np.float16)
    batch = {"moments": jax.numpy.asarray(moments), "seed": jax.numpy.zeros(1, "uint32")}
    model = stage.bound({})
    np.testing.assert_array_equal(stage.latents(model, batch, None), drawn_latents(model, batch))


@pytest.mark.parametrize("changes", [{"sample_every": 10}, {"validation": "test"}])
def test_samples_and_validation_need_pictures(tmp_path, changes):
    """Which embeddings alone do not have; told before anything is read."""
    settings = config("", data={"embeddings": "/nowhere"}, **changes)
    with pytest.raises(UserError, match=f"config.{next(iter(changes))} is .*, which needs pictures"):
        Trainer(settings, tmp_path / "run").run()
    assert not (tmp_path / "run").exists()
