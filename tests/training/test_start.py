"""Several checkpoints to start from: each gives what those before it lack."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.training.small import config, start_params
from tests.weights import layouts
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.training import checkpoints
from tooncrafter_jax.training.checkpoints import Checkpoints, export
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture, start_checkpoints
from tooncrafter_jax.training.state import new_state
from tooncrafter_jax.weights.convert import convert
from tooncrafter_jax.weights.hub import models_cache
from tooncrafter_jax.weights.store import REQUIRED_COMPONENTS, Checkpoint, CheckpointWriter


def write_checkpoint(directory, model, seed, names):
    """A checkpoint of drawn parameters in which no two components, and no two seeds, are alike."""
    networks = model.networks()
    with CheckpointWriter(directory, model, {"made": directory.name}, safetensors=True) as writer:
        for number, name in enumerate(names):
            draw = np.random.default_rng((seed, number))
            shapes = networks[name].abstract_params
            writer.write(name, {path: draw.normal(size=leaf.shape).astype(np.float32) for path, leaf in shapes.items()})
    return directory


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A newer autoencoder with a plain decoder, an older one with all parts, and what a run starts from both."""
    folder = tmp_path_factory.mktemp("starts")
    whole = architecture(config(folder, "decoder"))
    plain = dataclasses.replace(
        whole,
        decoder=dataclasses.replace(whole.decoder, temporal=False, references=False),
        schedule=dataclasses.replace(whole.schedule, scale_factor=0.5),
    )
    newer = write_checkpoint(folder / "newer", plain, 1, ["decoder", "autoencoder"])
    older = write_checkpoint(folder / "older", whole, 2, ["autoencoder", "decoder"])
    return folder, newer, older


def params_of(folder, start, **changes):
    settings = config(folder, "decoder", start=start, **changes)
    model = architecture(settings)
    return start_params(make_stage(settings, model)), model


WHOLE = {"decoder": {"temporal": True, "references": True}}


def test_a_decoder_is_put_together_from_its_parts(world):
    folder, newer, older = world
    first, _ = params_of(folder, str(newer), model_changes=WHOLE)
    second, _ = params_of(folder, str(older), model_changes=WHOLE)
    both, model = params_of(folder, f"{newer}, {older}", model_changes=WHOLE)
    added = {path for path in both if path.startswith("decoder.") and ("temporal" in path or "reference" in path)}
    of_newer = {path for path in both if path.startswith("autoencoder.")}
    assert of_newer and added
    for path in of_newer:
        np.testing.assert_array_equal(both[path], first[path])
    decoder = {path for path in both if path.startswith("decoder.")}
    from_newer = {path for path in decoder if np.array_equal(both[path], first[path])}
    from_older = {path for path in decoder if np.array_equal(both[path], second[path])}
    assert from_newer | from_older == decoder
    plain = params_of(folder, str(newer))[0]
    shared = {path for path in plain if path.startswith("decoder.")}
    assert from_newer == shared and decoder - shared == from_older
    assert model.schedule.scale_factor == 0.5, "the first checkpoint tells what no component has of its own"


def test_a_published_image_decoder_gets_the_other_parts(world, tmp_path):
    """As a converted DynamiCrafter has it: with the convolution that it begins with, which stays."""
    folder, newer, _ = world
    model = Checkpoint(newer).config
    image = dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, post_quantization=True))
    start = str(write_checkpoint(tmp_path / "image", image, 4, ["autoencoder", "decoder"]))
    given, architecture_ = params_of(folder, start, model_changes={})
    assert architecture_ == image, "the file's own"
    settings = config(folder, "decoder", start=start, model_changes={})
    stage = make_stage(settings, image)
    assert stage.model == dataclasses.replace(
        image, decoder=dataclasses.replace(image.decoder, temporal=True, references=True)
    )
    stored = Checkpoint(start).restore_on_host("decoder", image.networks()["decoder"])
    assert "post_quantization.kernel" in stored
    for path, value in stored.items():
        np.testing.assert_array_equal(given[f"decoder.{path}"], value, err_msg=path)
    added = {path.removeprefix("decoder.") for path in given if path.startswith("decoder.")} - set(stored)
    assert {path.split(".")[0] for path in added} == {"mid", "up", "conv_out_temporal", "final_reference_residual"}
    assert not np.any(given["decoder.final_reference_residual.conv.kernel"])  # so that they change nothing
    as_asked = config(folder, "decoder", start=start, model_changes={"decoder": {"temporal": False}})
    assert make_stage(as_asked, architecture(as_asked)).model == image


def test_rectification_starts_from_a_model_with_an_image_decoder(world, tmp_path):
    """As the paper's does, from DynamiCrafter; the decoder goes along untouched."""
    folder, newer, _ = world
    plain = Checkpoint(newer).config
    image = dataclasses.replace(plain, decoder=dataclasses.replace(plain.decoder, post_quantization=True))
    start = write_checkpoint(tmp_path / "image", image, 5, REQUIRED_COMPONENTS)
    settings = config(folder, "rectify", start=str(start), model_changes={})
    stage = make_stage(settings, architecture(settings))
    assert stage.model == image
    params = {path: jax.numpy.asarray(value) for path, value in start_params(stage).items()}
    export(tmp_path / "model", stage, new_state(stage, params), model=stage.model, provenance={})
    exported = Checkpoint(tmp_path / "model")
    assert exported.config.decoder == image.decoder and exported.components == REQUIRED_COMPONENTS
    before = Checkpoint(start).restore_on_host("decoder", image.networks()["decoder"])
    for path, value in exported.restore_on_host("decoder", image.networks()["decoder"]).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


@pytest.fixture(scope="module")
def dynamicrafter(tmp_path_factory):
    """A file of DynamiCrafter's layout, of the tiny architecture, as it is converted."""
    folder = tmp_path_factory.mktemp("dynamicrafter")
    whole = layouts.with_plain_decoder(layouts.model())
    file = layouts.write_checkpoint(folder / "model.ckpt", whole, "float16", ("state_dict",))
    convert(file, folder / "model", tiny(), dtype=np.float16)
    return folder / "model"


@pytest.mark.parametrize("stage_name", ["rectify", "decoder"])
@pytest.mark.gate
def test_a_stage_starts_from_a_file_of_dynamicrafter(dynamicrafter, stage_name):
    frames = {"directory": str(dynamicrafter), "frames": 16, "height": 64, "width": 64}
    settings = config(dynamicrafter, stage_name, start=str(dynamicrafter), model_changes={}, data=frames)
    checkpoint = Checkpoint(dynamicrafter)
    stage = make_stage(settings, architecture(settings))
    is_video = stage_name == "decoder"
    assert (stage.model.decoder.temporal, stage.model.decoder.references) == (is_video, is_video)
    params = start_params(stage)
    for name in ("decoder", "autoencoder") if is_video else ("unet", "image_projector", "autoencoder"):
        for path, value in checkpoint.restore_on_host(name, checkpoint.config.networks()[name]).items():
            np.testing.assert_array_equal(params[f"{name}.{path}"], value.astype(np.float32), err_msg=path)
    added = [path for path in params if ".temporal." in path and path.startswith("decoder.")]
    assert bool(added) == is_video


def test_what_is_exported_tells_what_it_started_from(world, tmp_path):
    folder, newer, older = world
    settings = config(folder, "decoder", start=f"{newer},{older}", model_changes=WHOLE)
    stage = make_stage(settings, architecture(settings))
    params = {path: jax.numpy.asarray(value) for path, value in start_params(stage).items()}
    export(tmp_path / "model", stage, new_state(stage, params), model=stage.model, provenance={"steps": 3})
    provenance = Checkpoint(tmp_path / "model").provenance
    assert provenance == {"steps": 3, "started_from": [{"made": "newer"}, {"made": "older"}]}


def test_a_component_comes_from_the_first_that_holds_it(world, tmp_path):
    folder, _, older = world
    second, whole = params_of(folder, str(older), model_changes={})
    alone = write_checkpoint(tmp_path / "alone", whole, 3, ["autoencoder"])
    params, _ = params_of(folder, f"{alone},{older}", model_changes={})
    path = next(path for path in params if path.startswith("autoencoder.") and params[path].size > 10)
    assert not np.array_equal(params[path], second[path])
    path = next(path for path in params if path.startswith("decoder.") and params[path].size > 10)
    np.testing.assert_array_equal(params[path], second[path])
    assert jax.tree.structure(params) == jax.tree.structure(second)


def test_one_that_is_missing_is_named(world):
    folder, newer, _ = world
    with pytest.raises(UserError, match="no checkpoint directory .*nowhere"):
        architecture(config(folder, "decoder", start=f"{newer},/nowhere"))


def test_a_name_with_a_comma_is_one_checkpoint(world, tmp_path):
    folder, _, older = world
    odd = tmp_path / "rate=1,decay=0"
    odd.symlink_to(older)
    model = architecture(config(folder, "decoder", start=str(odd), model_changes={}))
    assert model == architecture(config(folder, "decoder", start=str(older), model_changes={}))


def test_a_comma_too_many_is_reported(world):
    folder, newer, _ = world
    with pytest.raises(UserError, match="not a checkpoint directory"):
        architecture(config(folder, "decoder", start=f"{newer},"))


@pytest.mark.parametrize("process", [1, 0])
def test_one_process_writes_the_config_down(tmp_path, monkeypatch, process):
    """Each would write the same file at once, and on a bucket each costs a request."""
    monkeypatch.setattr(checkpoints, "is_main_process", lambda: process == 0)
    written = []
    monkeypatch.setattr(checkpoints, "write_atomically", lambda path, data: written.append((path.name, data)))
    settings = config(tmp_path, "rectify")
    Checkpoints(tmp_path / "run", make_stage(settings, architecture(settings))).close()
    assert [name for name, _ in written] == ["config.json"] * (process == 0)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_start_may_be_a_published_model(world, tmp_path, monkeypatch):
    """By its name; it is here already, so that nobody is asked."""
    folder, newer, older = world
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for owner, directory in {"first": newer, "second": older}.items():
        place = models_cache() / f"{owner}--model" / "main+model+as-published"
        place.parent.mkdir(parents=True)
        place.symlink_to(directory)
    settings = config(folder, "decoder", start="first/model,hf://second/model")
    assert [one.provenance["made"] for one in start_checkpoints(settings)] == ["newer", "older"]
