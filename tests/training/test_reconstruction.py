"""The stages with a discriminator: it takes part from its start step on, and before that it neither changes nor
counts.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import config, fresh_params
from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.training import start, trainer
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.sharding import make_mesh, put_batch, step_rows
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.decoder import Decoder
from tooncrafter_jax.training.stages.reconstruction import DISCRIMINATOR
from tooncrafter_jax.training.stages.stage import MODEL
from tooncrafter_jax.training.start import Start, architecture
from tooncrafter_jax.training.state import new_state
from tooncrafter_jax.training.step import make_step, make_validation
from tooncrafter_jax.typing import DeviceParams
from tooncrafter_jax.zoo.lpips.network import Lpips, LpipsConfig
from tooncrafter_jax.zoo.metric_weights import LoadedNetwork

pytestmark = pytest.mark.gate

START = 2


def make_decoder(settings: TrainConfig) -> Decoder:
    stage = make_stage(settings, architecture(settings))
    assert isinstance(stage, Decoder)
    return stage


@pytest.fixture(scope="module")
def run(clips):
    """Parameters before every step and after the last, and the metrics of each step."""
    settings = config(
        clips,
        "autoencoder",
        options={"discriminator": {"start_step": START, "width": 8, "learning_rate": 1e-3}},
        data={"batch": 2, "frames": 2},
    )
    mesh = make_mesh("data:1", jax.devices()[:1])
    stage = make_stage(settings, architecture(settings), mesh)
    state, step = Start(stage).state(mesh), make_step(stage, mesh)
    with Loader.open(settings.data) as loader:
        batch = step_rows(next(loader))
    params, metrics = [jax.device_get(state.params)], []
    for _ in range(5):
        state, found = step(state, put_batch(batch, mesh))
        params.append(jax.device_get(state.params))
        metrics.append(jax.device_get(found))
    return stage, batch, params, metrics


def test_the_discriminator_waits_for_its_step(run):
    _, _, params, metrics = run
    own = [path for path in params[0] if path.startswith(f"{DISCRIMINATOR}.")]
    assert any(path.endswith("variance") for path in own)
    for path in own:
        np.testing.assert_array_equal(params[0][path], params[START][path], err_msg=path)
        if not path.endswith("bias"):  # the hinge's pulls on the last bias cancel
            assert not np.array_equal(params[START][path], params[START + 1][path]), path
    for number, found in enumerate(metrics):
        takes_part = number >= START
        for name in ("adversarial", "adversarial_weight", "discriminator_loss", "logits_real", "logits_fake"):
            assert bool(found[name] != 0.0) == takes_part, (number, name)


def test_a_discriminator_that_never_takes_part_is_not_compiled(run):
    stage, batch, params, metrics = run
    never = type(stage)(dataclasses.replace(stage.config, steps=START), stage.model, stage.mesh)
    given = params[0], put_batch(batch, stage.mesh), jax.random.key(0), jnp.zeros((), jnp.int32)
    waits, alone = (jax.jit(some.gradients).lower(*given) for some in (stage, never))
    assert "stablehlo.case" in waits.as_text() and "stablehlo.case" not in alone.as_text()
    found = alone.compile()(*given)
    assert float(found.loss) == pytest.approx(float(metrics[0]["loss"]), rel=1e-5)
    assert all(not np.any(gradient) for gradient in found.by_optimizer[DISCRIMINATOR].values())
    assert any(np.any(gradient) for gradient in found.by_optimizer[MODEL].values())


def test_the_loss_is_made_of_its_parts(run):
    for found in run[3]:
        parts = found["l1"] + 1e-6 * found["divergence"] + found["adversarial_weight"] * found["adversarial"]
        np.testing.assert_allclose(found["loss"], parts, rtol=1e-5)


def test_the_model_learns_from_the_first_step(run):
    _, _, params, metrics = run
    assert metrics[START - 1]["l1"] < metrics[0]["l1"]
    moved = [path for path in params[0] if path.startswith(("autoencoder.", "decoder."))]
    assert all(not np.array_equal(params[0][path], params[1][path]) for path in moved if path.endswith("kernel"))


def test_the_exported_scale_factor_gives_latents_a_deviation_of_one(run, clips):
    stage, batch, params, _ = run
    rows = put_batch(batch, stage.mesh)
    fitted = stage.fitted_model(params[-1], lambda: rows)
    latents = jax.jit(lambda p, b: stage.encoded(stage.bound(p), b).latents)(params[-1], rows)
    assert float(np.std(np.asarray(latents) * fitted.schedule.scale_factor)) == pytest.approx(1.0, abs=1e-4)


@pytest.fixture(scope="module")
def validation(run, clips):
    """The compiled validation, and the three clips of the split "test" one by one, all with pixels of their own."""
    stage, _, params, _ = run
    settings = dataclasses.replace(stage.config.data, split="test", batch=2).evaluation()
    with Loader.open(settings) as loader:
        batches = [next(loader), next(loader)]
    rows = [
        {name: values[i] for name, values in step_rows(batch).items()}
        for batch in batches
        for i in range(2)
        if batch["valid"][i]
    ]
    assert len(rows) == 3 and not batches[1]["valid"].all()
    compiled = make_validation(stage, stage.mesh)

    def validate(*clips):
        batch = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
        return {name: float(value) for name, value in compiled(params[-1], put_batch(batch, stage.mesh)).items()}

    return validate, rows


def test_rows_that_only_fill_a_batch_do_not_count(validation):
    validate, (first, second, _) = validation
    noise = np.random.default_rng(0).integers(0, 256, first["video"].shape, np.uint8)
    filler = second | {"video": noise, "valid": np.bool_(False)}
    alone, filled, both = validate(first, first), validate(first, filler), validate(first, second)
    assert filled.pop("clips") == 1 and alone.pop("clips") == both.pop("clips") == 2
    assert filled == pytest.approx(alone, rel=1e-5)  # float32 sums of other numbers of clips
    assert both != pytest.approx(alone, rel=1e-2)


def test_validation_is_the_mean_over_clips_however_they_are_cut(run, validation, tmp_path, monkeypatch):
    """Three clips in batches of two, of which the last is filled up."""
    stage, _, params, _ = run
    validate, rows = validation
    of_clips = [validate(row, row) for row in rows]
    monkeypatch.setattr(trainer, "run_mesh", lambda *_: stage.mesh)
    settings = dataclasses.replace(stage.config, validation="test")
    whole = trainer.Trainer(settings, tmp_path)
    state = new_state(whole.stage, {path: jnp.asarray(value) for path, value in params[-1].items()})
    found = whole.validate(state)
    assert set(found) == set(of_clips[0]) - {"clips"} and {"l1", "psnr", "psnr_of_ends", "loss"} <= set(found)
    for name, value in found.items():
        assert value == pytest.approx(np.mean([one[name] for one in of_clips]), rel=1e-5), name


def test_the_peak_to_noise_ratio_is_of_each_clip(validation):
    validate, (first, second, _) = validation
    together = validate(first, second)["psnr"]
    assert together == pytest.approx((validate(first, first)["psnr"] + validate(second, second)["psnr"]) / 2, rel=1e-5)


def test_lpips_is_of_other_frames_in_every_step(clips, monkeypatch):
    """Where the config asks for some frames: all are met in turn, and the others do not count."""
    stage = make_decoder(config(clips, "decoder", options={"perceptual_weight": 0.5, "perceptual_frames": 4}))

    def compared_of(seed, frames=16):
        return stage.compared_frames(
            {"video": jnp.zeros((2, frames, 8, 8, 3)), "seed": jnp.asarray([seed, 9], "uint32")}
        )

    compared = [frames for seed in (4, 5, 6, 7) if (frames := compared_of(seed)) is not None]
    assert sorted(np.concatenate(compared)) == list(range(16))
    assert compared_of(4, frames=4) is None
    monkeypatch.setattr(
        type(stage.components), "bind", lambda *_: lambda one, other: jnp.abs(one - other).mean((1, 2, 3))
    )
    truth = jnp.zeros((2, 16, 8, 8, 3))
    video = truth.at[:, compared[0]].set(1.0)
    for frames, expected in ((None, 4 / 16), (compared[0], 1.0), (compared[1], 0.0)):
        losses, metrics = stage.distance({}, video, truth, frames)
        assert float(metrics["lpips"]) == expected
        assert {name: float(value) for name, value in losses.items()} == {"l1": 4 / 16, "lpips": 0.5 * expected}


@pytest.mark.parametrize("net", ["vgg16", "alexnet"])
def test_lpips_is_of_the_network_that_is_asked_for(clips, monkeypatch, net):
    """With the weights that the metric of that name has."""
    network = Network(Lpips, LpipsConfig.of(net))
    params: DeviceParams = {
        name: jnp.full(leaf.shape, 0.1, leaf.dtype) for name, leaf in network.abstract_params.items()
    }
    given = {net: LoadedNetwork(network, params)}
    monkeypatch.setattr(start, "load_lpips", given.__getitem__)
    stage = make_decoder(config(clips, "decoder", options={"perceptual_weight": 0.5, "perceptual_network": net}))
    wanted = {path for path in stage.components.abstract_params if path.startswith("perceptual.")}
    loaded = Start(stage).load_on_host(wanted)
    assert loaded.keys() == {f"perceptual.{name}" for name in params}


def test_new_parts_of_a_decoder_start_so_that_they_change_nothing(clips):
    """A dual-reference decoder over a plain one's weights draws what the plain one draws, to rounding."""
    plain = config(clips, "decoder", model_changes={"decoder": {"temporal": False, "references": False}})
    full = config(clips, "decoder", model_changes={"decoder": {"temporal": True, "references": True}})
    with Loader.open(plain.data) as loader:
        batch = step_rows(next(loader))
    videos, params = [], {}
    for settings in (plain, full):
        stage = make_decoder(settings)
        fresh = fresh_params(stage, 7)
        missing = set(fresh) - set(params)
        params = {**fresh, **params}
        if stage.model.decoder.temporal:
            params |= {path: one.value(params) for path, one in stage.derive(missing).items()}
        drawn = jax.jit(lambda p, b, stage=stage: stage.reconstruct(stage.bound(p), b)[0])(params, batch)
        videos.append(np.asarray(drawn))
    np.testing.assert_allclose(videos[1], videos[0], atol=1e-5)
    assert videos[0].std() > 0.01


def test_new_parts_alone_learn_against_the_discriminator(clips):
    """The adaptive weight compares gradients at a layer that is frozen here; the weight is that of training
    everything.
    """
    weights = []
    for groups in ((), ("decoder.har", "decoder.p3d")):
        settings = config(clips, "decoder", groups=groups, options={"discriminator": {"start_step": 0, "width": 8}})
        mesh = make_mesh("data:1", jax.devices()[:1])
        stage = make_stage(settings, architecture(settings), mesh)
        assert isinstance(stage, Decoder)
        with Loader.open(settings.data) as loader:
            batch = step_rows(next(loader))
        params = fresh_params(stage, 3)
        found = jax.jit(stage.gradients)(params, put_batch(batch, mesh), jax.random.key(0), jax.numpy.zeros((), int))
        weights.append(float(found.metrics["adversarial_weight"]))
        trained = {path for path in params if stage.is_trained(path)}
        assert set(found.by_optimizer[MODEL]) == trained
        assert stage.last_layer in params
    assert stage.last_layer not in trained
    assert weights[1] == pytest.approx(weights[0], rel=1e-4)
    assert weights[0] > 0


def test_an_autoencoder_from_nothing_starts_with_quiet_branches(run):
    """Every residual block hands its input through, or its skip convolution's; the other kernels keep the variance."""
    first = run[2][0]
    ends = [path for path in first if path.endswith((".res.conv_out.kernel", ".attention.out.kernel"))]
    assert {path.split(".")[0] for path in ends} == {"autoencoder", "decoder"}
    assert not any(first[path].any() for path in ends)
    kernels = [path for path in first if path.startswith(("autoencoder.", "decoder.")) and path.endswith("kernel")]
    for path in set(kernels) - set(ends):
        kernel = np.asarray(first[path])
        assert 0.8 < kernel.std() * np.sqrt(kernel[..., 0].size) < 1.2, path


def test_latent_noise_is_of_every_strength_up_to_the_configs_by_the_examples_seeds(clips):
    seeds = jax.numpy.arange(400, dtype=np.uint32)
    latents = np.zeros((400, 2, 4, 4, 4), np.float32)
    configs = [config(clips, "decoder", options={"latent_noise": most}) for most in (0.0, 0.5)]
    stages = [make_decoder(settings) for settings in configs]
    clean, noisy = (np.asarray(stage.noisy(jax.numpy.asarray(latents), seeds)) for stage in stages)
    assert not clean.any()
    strengths = noisy.std(axis=(1, 2, 3, 4)) * stages[1].model.schedule.scale_factor
    assert strengths.max() < 0.65 and strengths.min() < 0.02 and strengths.mean() == pytest.approx(0.25, abs=0.03)
    again = stages[1].noisy(jax.numpy.asarray(latents[:3]), seeds[5:8])
    np.testing.assert_array_equal(noisy[5:8], np.asarray(again))
