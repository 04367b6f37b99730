"""How a new sketch encoder begins, and the sketches that it learns from."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.reference import noise_params
from tests.training.small import NARROW_CHANGES, SIZE, config, fresh_params
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.sketches import HedExtractor
from tooncrafter_jax.training import trainer
from tooncrafter_jax.training.hints import HintDrawing, hints_spec
from tooncrafter_jax.training.sharding import make_mesh, put_batch
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.training.trainer import Trainer
from tooncrafter_jax.zoo.hed.network import Hed, HedConfig


@pytest.fixture(scope="module", params=["zeros", "scaled"])
def encoder(request, tmp_path_factory):
    """How its hint convolutions begin, and the new encoder bound to its parameters."""
    run = config(tmp_path_factory.mktemp("set"), "sketch", options={"hint_start": request.param})
    stage = make_stage(run, architecture(run))
    fresh = fresh_params(stage, 0, ["unet", "sketch_encoder"])
    missing = {path for path in fresh if path.startswith("sketch_encoder.")}
    derived = {path: one.value(fresh) for path, one in stage.derive(missing).items()}
    params = {path: jnp.asarray(value) for path, value in (fresh | derived).items()}
    return request.param, stage.components.bind("sketch_encoder", params), fresh


@pytest.mark.gate
def test_a_new_encoder_shares_the_denoisers_layers_and_adds_nothing(encoder):
    _, network, fresh = encoder
    assert np.array_equal(network.time_embedding.hidden.kernel[...], fresh["unet.time_embedding.hidden.kernel"])
    for tap in (*network.skip_taps, network.mid_tap):
        assert not np.any(tap.kernel[...]) and not np.any(tap.bias[...])


def test_scaled_hint_convolutions_keep_a_drawings_contrast(encoder):
    start, network, _ = encoder
    paper = np.zeros((1, 1, SIZE * 2, SIZE * 2, 1), np.float32)
    drawing = paper.copy()
    drawing[:, :, SIZE // 2, 10:50] = drawing[:, :, 10:50, SIZE] = 1.0
    contrast = float(jnp.std(network.hint_features(jnp.asarray(drawing)) - network.hint_features(jnp.asarray(paper))))
    assert contrast == 0 if start == "zeros" else 0.2 < contrast < 10


class _Counting(HedExtractor):
    """Notes the shapes that it is compiled for, and on the host how many pictures it has drawn."""

    traced: list[tuple[int, ...]]
    drawn: list[int]

    def draw(self, params, images):
        self.traced.append(images.shape)
        jax.debug.callback(lambda: self.drawn.append(images.shape[0]))
        return super().draw(params, images)


HED = Network(Hed, HedConfig(widths=(4, 6), convs=(2, 1)))


@pytest.fixture(scope="module")
def extractor():
    counting = _Counting(noise_params(HED, gain=0.1), config=HED.config, batch_size=2)
    counting.traced, counting.drawn = [], []
    return counting


@pytest.fixture(scope="module", params=["data:1", "data:2,fsdp:2,frames:2"])
def world(request, devices, extractor):
    """A mesh, a video of 4 clips on it, and on the host the sketch of every frame as the extractor alone draws it."""
    mesh = make_mesh(request.param, devices[: 1 if request.param == "data:1" else 8])
    video = np.random.default_rng(0).integers(0, 256, (4, 6, 20, 28, 3), np.uint8)
    lines = np.concatenate([np.asarray(extractor(to_pixels(jnp.asarray(clip)))) for clip in video])
    return mesh, video, 1.0 - lines.reshape(*video.shape[:-1], 1)


def _patterns():
    """Which frames are chosen: of some clips, of one, of none, of all."""
    some = np.random.default_rng(1).random((4, 6)) < 0.4
    one = np.zeros((4, 6), bool)
    one[2, 5] = True
    return some, one, np.zeros((4, 6), bool), np.ones((4, 6), bool)


def test_hints_are_the_sketches_of_the_chosen_frames(world, extractor):
    """To float32's rounding, drawn where the frames are; one program serves every choice, and draws little else."""
    mesh, video, expected = world
    drawing = HintDrawing(extractor, mesh, every_frame=False)
    extractor.traced.clear()
    for chosen in _patterns():
        extractor.drawn.clear()
        batch = put_batch({"video": video, "sketched": chosen}, mesh)
        with jax.set_mesh(mesh):
            hints = drawing(batch)
        assert hints.sharding.is_equivalent_to(NamedSharding(mesh, hints_spec(mesh, 4, 6)), hints.ndim)
        np.testing.assert_allclose(hints, expected * chosen[..., None, None, None], atol=1e-5)
        jax.effects_barrier()
        assert sum(extractor.drawn) <= chosen.sum() + mesh.size  # two at a time, of which one a device may be a filler
        assert bool(extractor.drawn) == bool(chosen.any())
    assert (
        set(extractor.traced) == {(2, 20, 28, 3)} and len(extractor.traced) <= 2
    )  # a loop's body is traced twice at most


def test_every_frame_is_guided_where_that_is_asked_for(world, extractor):
    mesh, video, expected = world
    batch = put_batch({"video": video, "sketched": np.zeros((4, 6), bool)}, mesh)
    np.testing.assert_allclose(HintDrawing(extractor, mesh, every_frame=True)(batch), expected, atol=1e-5)


def test_a_batch_that_devices_do_not_divide_is_drawn_all_the_same(world, extractor):
    mesh, video, expected = world
    rows = {"video": jnp.asarray(video[:1, :5]), "sketched": jnp.ones((1, 5), bool)}
    everywhere = NamedSharding(mesh, PartitionSpec())
    hints = HintDrawing(extractor, mesh, every_frame=False)(jax.device_put(rows, everywhere))
    np.testing.assert_allclose(hints, expected[:1, :5], atol=1e-5)


def test_embeddings_alone_have_nothing_to_draw(devices, extractor):
    drawing = HintDrawing(extractor, make_mesh("data:1", devices[:1]), every_frame=False)
    with pytest.raises(UserError, match=r"set config\.data\.video to True, and config\.data\.directory"):
        drawing({"sketched": jnp.zeros((1, 4), bool)})


def test_a_run_goes_on_with_the_extractors_weights_that_it_began_with(clips, tmp_path, monkeypatch):
    """Also one of an earlier version, which did not note them down."""
    settings = config(clips, "sketch", model_changes=NARROW_CHANGES, data={"height": 16, "width": 16})
    done = []

    def run(gain):
        extractor = HedExtractor(noise_params(HED, gain=gain), config=HED.config)
        monkeypatch.setattr(trainer, "load_extractor", lambda *_: extractor)
        Trainer(settings, tmp_path / "run").run()

    def stopped(self, state, *_):
        done.append(int(state.step))
        return dataclasses.replace(state, step=state.step + 1), False, {}

    monkeypatch.setattr(Trainer, "_train", stopped)
    run(gain=0.1)
    run(gain=0.1)
    with pytest.raises(UserError, match=r"not those that drew .* until step 2: .* by --config.sketch.weights=FILE"):
        run(gain=0.2)
    assert done == [0, 1]
    noted = tmp_path / "run" / "checkpoints" / "2" / "start" / "metadata"
    fingerprints = json.loads(noted.read_text())
    assert fingerprints.pop("extractor")
    noted.write_text(json.dumps(fingerprints))
    run(gain=0.2)
    assert done == [0, 1, 2]
