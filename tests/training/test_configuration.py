"""Configs: files, overrides, and every mistake in a sentence before anything is compiled."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from tests.training.small import config
from tooncrafter_jax.cli.config_options import read_config
from tooncrafter_jax.cli.train import main
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.training.configuration import train_config
from tooncrafter_jax.training.optimizers import make_optimizer, masked
from tooncrafter_jax.training.sharding import check_batch, make_mesh, parse_mesh
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.training.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "stage", "batch", "rate"),
    [
        ("rectify_512.py", "rectify", 32, 1e-5),
        ("decoder_512.py", "decoder", 16, 4.5e-6),
        ("sketch_512.py", "sketch", 32, 5e-5),
        ("sketch_512.py:zero_gate", "sketch", 32, 5e-5),
        ("rectify_512_variants.py:v", "rectify", 32, 1e-5),
        ("tiny.py:lora", "rectify", 2, 1e-4),
        ("tiny.py:joint", "joint", 2, 1e-4),
        ("tiny.py:distill", "distill", 2, 1e-4),
        ("small.py:autoencoder", "autoencoder", 8, 2e-3),
        ("small.py:autoencoder_lpips", "autoencoder", 4, 1e-3),
        ("small.py:base", "base", 8, 1.5e-3),
        ("small.py:rectify", "rectify", 4, 3e-3),
        ("small.py:rectify_lora", "rectify", 8, 5e-3),
        ("small.py:decoder_plain_true", "decoder", 1, 4e-4),
        ("small.py:decoder_carried_lpips", "decoder", 1, 4e-4),
        ("small.py:carried", "joint", 1, 5e-4),
        ("small.py:distilled", "distill", 2, 1.5e-4),
        ("small.py:joint", "joint", 1, 2e-4),
        ("small.py:sketch", "sketch", 4, 2e-3),
        ("small.py:together", "joint", 1, 6e-4),
    ],
)
def test_config_files(name, stage, batch, rate):
    read = read_config(str(CONFIGS / name), [])
    assert (read.stage, read.data.batch, read.optimizer.learning_rate) == (stage, batch, rate)


def test_variants_differ_in_what_is_trained():
    read = {name: read_config(f"{CONFIGS}/rectify_512_variants.py:{name}", []) for name in ("ii", "iii", "iv", "v")}
    assert "temporal" in read["ii"].groups and "temporal" not in read["iv"].groups
    assert read["v"].groups == ("projector",)
    assert [name for name in read if read[name].options.bypass_temporal] == ["iii"]


def test_a_value_is_changed_on_the_command_line():
    read = read_config(
        f"{CONFIGS}/tiny.py", ["--config.steps=7", "--config.data.directory=x", "--config.groups=('spatial',)"]
    )
    assert (read.steps, read.data.directory, read.groups) == (7, "x", ("spatial",))


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        (
            "small.py:nonsense",
            [],
            "small.py:nonsense' cannot be used: there is no run 'nonsense': choose one of autoencoder",
        ),
        ("tiny.py", ["--config.stepss=3"], "with --config.stepss=3 cannot be used: 'stepss' Did you mean \"steps\""),
        (
            "tiny.py",
            ["--config.adversarial.start_step=3"],
            "cannot be used: config.adversarial.start_step is config.STAGE.discriminator.start_step now",
        ),
        (
            "tiny.py",
            ["--config.latent_noise=0.5"],
            "cannot be used: config.latent_noise is config.decoder.latent_noise now",
        ),
        ("tiny.py", ["--config.denoised_latents=True"], "config.denoised_latents is the stage 'joint' now"),
        (
            "tiny.py",
            ["--config.optimizer.momentum=0.9"],
            "config.optimizer.momentum is no option any more and always 0.95",
        ),
        ("tiny.py", ["--config.steps=abc"], "cannot be used: flag --config.steps=abc: invalid literal for int()"),
    ],
)
def test_a_wrong_config_is_reported_in_one_line(name, overrides, said):
    with pytest.raises(UserError) as error:
        read_config(str(CONFIGS / name), overrides)
    assert said in str(error.value)
    assert "Traceback" not in str(error.value) and "\n" not in str(error.value)


def test_every_run_of_the_small_model_starts_from_runs_of_its_table():
    """And has the options of its stage: no config file sets what its stage lacks."""
    module = {}
    exec((CONFIGS / "small.py").read_text(), module)
    for name in module["RUNS"]:
        read = read_config(f"{CONFIGS}/small.py:{name}", [])
        starts = [start.split("/")[2] for start in filter(None, read.start.split(",")) if start != module["BUNDLED"]]
        assert set(starts) <= set(module["RUNS"]) and (starts or name in ("autoencoder", "carried"))
        if hasattr(read.options, "discriminator"):
            longer = read_config(f"{CONFIGS}/small.py:{name}", ["--config.steps=1000000"])
            assert longer.options.discriminator.start_step > longer.steps, "it never joins, however long the run"


def test_a_mistake_in_a_config_file_is_reported_with_its_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config():\n    return len(7)\n")
    with pytest.raises(UserError, match=r"has no len\(\) \(.*mine.py, line 2\)$"):
        read_config(str(file), [])


def test_rates_by_group():
    settings = train_config(
        {"optimizer": {"learning_rate": 0.1, "clip_norm": 0.0, "group_rates": "decoder:0.5, decoder.har:20"}}
    )
    params = {
        "decoder.conv_in.kernel": 1.0,
        "decoder.up.0.reference_residual.conv.kernel": 1.0,
        "unet.a": 1.0,
        "b": 1.0,
    }
    params = {path: jax.numpy.asarray(value) for path, value in params.items()}
    optimizer = make_optimizer(settings.optimizer, 10, lambda path: path != "b")
    gradients = masked({path: value for path, value in params.items() if path != "b"}, params)
    updates: Any = optimizer.update(gradients, optimizer.init(params), params)[0]
    whole = float(updates["unet.a"])
    assert whole == pytest.approx(-0.1 * (1 + 0.01), rel=1e-4)
    assert float(updates["decoder.conv_in.kernel"]) == pytest.approx(0.5 * whole)
    assert float(updates["decoder.up.0.reference_residual.conv.kernel"]) == pytest.approx(10 * whole)


def test_muon_turns_kernels_by_matrices_of_equal_singular_values():
    """Kernels of any rank, axes but the last as inputs; biases, tables and frozen kernels are none of Muon's."""
    settings = train_config(
        {"optimizer": {"name": "muon", "learning_rate": 0.1, "weight_decay": 0.0, "clip_norm": 0.0}}
    )
    shapes = {"conv.kernel": (3, 3, 2, 8), "linear.kernel": (6, 4), "linear.bias": (4,), "tokens.embedding": (5, 4)}
    drawn = np.random.default_rng(0)
    params = {path: jax.numpy.asarray(drawn.normal(size=shape), "float32") for path, shape in shapes.items()}
    params["frozen.kernel"] = params["linear.kernel"]
    optimizer = make_optimizer(settings.optimizer, 10, lambda path: path != "frozen.kernel")
    gradients = masked({path: value for path, value in params.items() if path != "frozen.kernel"}, params)
    state = optimizer.init(params)
    updates: Any = optimizer.update(gradients, state, params)[0]
    for path in ("conv.kernel", "linear.kernel"):
        matrix = np.asarray(updates[path]).reshape(-1, shapes[path][-1])
        values = np.linalg.svd(matrix, compute_uv=False)
        largest = 0.1 * 0.2 * max(matrix.shape) ** 0.5
        assert largest * 0.5 < values.min() and values.max() < largest * 1.3  # five iterations come no nearer
    rest = {path: params[path] for path in ("linear.bias", "tokens.embedding")}
    adam = optax.nadamw(0.1, weight_decay=0.0)
    expected: Any = adam.update(rest, adam.init(rest), rest)[0]
    for path, update in expected.items():
        np.testing.assert_allclose(updates[path], update, rtol=1e-5)
    assert isinstance(updates["frozen.kernel"], optax.MaskedNode)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 1]
    assert sum(leaf.size for leaf in moments) == 144 + 24 + 2 * 20  # one moment of a kernel, two of what Adam has


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decoder.hat:2", "no parameter group 'decoder.hat'; did you mean 'decoder.har'"),
        ("decoder.har", "has 'decoder.har', which must be a group and a factor above 0, such as decoder.har:20"),
        ("decoder.har:fast", "has 'decoder.har:fast', which must be"),
        ("spatial:1, decoder.har:-1", "has 'decoder.har:-1', which must be"),
    ],
)
def test_rates_that_mean_nothing(text, message):
    with pytest.raises(UserError, match=message):
        train_config({"optimizer": {"group_rates": text}})


@pytest.mark.gate
def test_rates_by_group_are_not_for_lora():
    values = {"model": "tiny", "optimizer": {"group_rates": "spatial:2"}, "rectify": {"lora": {"rank": 4}}}
    settings = train_config(values)
    model = architecture(settings)
    with pytest.raises(UserError, match="group_rates means nothing to low-rank factors"):
        make_stage(settings, model)


def test_meshes():
    assert parse_mesh("data:2, fsdp:4", 8) == {"data": 2, "fsdp": 4, "tensor": 1, "frames": 1}
    assert make_mesh("auto").shape["data"] == len(jax.devices())
    mesh = make_mesh("data:2,fsdp:2,frames:2")
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 1, "frames": 2}
    check_batch(8, 2, mesh)


def _trainer(tmp_path, clips, **changes):
    return lambda: Trainer(config(clips, **changes), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepps": 3}, "no key 'stepps'; did you mean 'steps'"),
        ({"optimizer": {"learning_rat": 1.0}}, "config.optimizer has no key 'learning_rat'"),
        ({"steps": "many"}, "config.steps must be of type int"),
        ({"steps": 0}, "config.steps must be at least 1"),
        (
            {"stage": "paint"},
            "config.stage must be one of base, rectify, .*, distill, not 'paint'",
        ),
        ({"ema_decay": 1.0}, r"config.ema_decay must be in \[0, 1\)"),
        ({"seed": -1}, "config.seed must be at least 0, not -1"),
        ({"optimizer": {"clip_norm": -0.5}}, "config.optimizer.clip_norm must be at least 0, not -0.5"),
        ({"optimizer": {"warmup_steps": -1}}, "config.optimizer.warmup_steps must be at least 0"),
        ({"optimizer": {"weight_decay": -0.1}}, "config.optimizer.weight_decay must be at least 0"),
        ({"optimizer": {"beta1": 1.0}}, r"config.optimizer.beta1 must be in \[0, 1\), not 1.0"),
        ({"optimizer": {"beta2": -0.1}}, r"config.optimizer.beta2 must be in \[0, 1\)"),
        ({"options": {"lora": {"rank": -1}}}, "config.rectify.lora.rank must be at least 0"),
        (
            {"stage": "decoder", "options": {"discriminator": {"weight": -1.0}}},
            "config.decoder.discriminator.weight must be at least 0",
        ),
        (
            {"stage": "decoder", "options": {"discriminator": {"learning_rate": -1.0}}},
            "config.decoder.discriminator.learning_rate must be at least 0",
        ),
        ({"groups": ["temporall"]}, "did you mean 'temporal'"),
        ({"groups": ["decoder"]}, "the stage 'rectify' cannot train"),
        ({"mesh": "data=8"}, "not like 'data:4,fsdp:8'"),
        ({"mesh": "data:3"}, "for 3 devices, but there are 8"),
        ({"mesh": "data:8", "data": {"batch": 12}}, "must be a multiple of 8"),
        ({"accumulation": 3}, "must be a multiple of 24"),
        ({"model": "huge"}, "unknown preset 'huge'"),
        ({"model_changes": {"unet": {"widht": 3}}}, "no key 'widht'; did you mean 'width'"),
        ({"start": "/nowhere/at/all"}, "no checkpoint directory"),
        ({"data": {"directory": "/nowhere/at/all"}}, "'/nowhere/at/all' does not exist"),
        ({"data": {"directory": ""}}, "directory is empty"),
        ({"data": {"split": "holiday"}}, "no split 'holiday'"),
        ({"data": {"batch": 64}}, "12 clips, fewer than config.data.batch=64"),
        ({"data": {"height": 30}}, "must be multiples of 16"),
        (
            {"data": {"frames": 1}},
            "config.data.frames is 1, but the stage 'rectify' learns what lies between two frames",
        ),
        ({"stage": "joint", "data": {"frames": 1}}, "config.data.frames is 1, but the stage 'joint' learns"),
        ({"remat": "offload"}, "needs a TPU or a GPU"),
        ({"attention": "splash"}, "config.attention is 'splash', which needs a TPU"),
        ({"options": {"lora": {"rank": 2, "targets": ["nothing"]}}}, "rectify.lora.targets .* match no kernel"),
        (
            {"stage": "decoder", "rectify": {"lora": {"rank": 2}}},
            "config.rectify.lora.rank is set, but config.stage is 'decoder', which has no such option",
        ),
        ({"decoder": {"latent_noise": 0.5}}, "config.decoder.latent_noise is set, but config.stage is 'rectify'"),
        ({"decoder": {"latent_nose": 0.5}}, "config.decoder has no key 'latent_nose'; did you mean 'latent_noise'"),
        (
            {"stage": "sketch", "options": {"last_time_share": 1.5}},
            r"config.sketch.last_time_share must be in \[0, 1\]",
        ),
        ({"stage": "decoder", "options": {"latent_noise": -1.0}}, "config.decoder.latent_noise must be at least 0"),
        ({"stage": "joint", "options": {"perceptual_frames": -1}}, "config.joint.perceptual_frames must be at least 0"),
        (
            {"stage": "decoder", "options": {"discriminator": {"width": 0}}},
            "config.decoder.discriminator.width must be at least 1, not 0",
        ),
        (
            {"optimizer": {"group_rates": "decoder.har:2"}},
            "group_rates has 'decoder.har', which the stage 'rectify' cannot train",
        ),
        ({"stage": "sketch", "options": {"extractor": "anime2sketch"}}, "netG.pth"),
    ],
)
def test_mistakes(tmp_path, clips, changes, message):
    with pytest.raises(UserError, match=message):
        _trainer(tmp_path, clips, **changes)().run()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x"], "required: --config"),
        (["--config=nowhere.py", "--workdir=x"], "there is no config file"),
        ([f"--config={CONFIGS}/tiny.py:paint", "--workdir=x"], "no variant 'paint'"),
        ([f"--config={CONFIGS}/tiny.py", "--workdir=x", "--config.stepps=1"], "stepps"),
        ([f"--config={CONFIGS}/tiny.py", "--workdir=x", "--config.steps=soon"], "soon"),
        ([f"--config={CONFIGS}/tiny.py", "--workdir=x", "--config.steps", "2000"], "write --config.steps=2000"),
        ([f"--config={CONFIGS}/tiny.py", "--workdir=x", "--process-id=1"], "belong together"),
    ],
)
def test_command_line_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        main(arguments)


@pytest.mark.gate
def test_full_size_counts_and_optimizer_state():
    """Spec section 2.8, and the optimizer state of the published model, without an array."""
    from tooncrafter_jax.training.optimizers import state_bytes
    from tooncrafter_jax.training.state import abstract_state

    expected = {"ii": 1_438_854_980 + 48_787_456, "iv": None, "v": 48_787_456}
    for variant, count in expected.items():
        read = read_config(f"{CONFIGS}/rectify_512_variants.py:{variant}", [])
        state = abstract_state(make_stage(read, architecture(read)))
        trained = sum(leaf.size for leaf in state.trained.values())
        if variant == "iv":
            count = 865_922_244 + 25_559_040 + 48_787_456 + (1_438_854_980 - 865_922_244 - 25_559_040 - 545_323_136)
        assert trained == count
        assert 0 <= state_bytes(state.optimizer) - 2 * 4 * trained <= 16


def test_config_values_are_checked_when_made():
    with pytest.raises(UserError, match="learning_rate must be above 0"):
        train_config({"optimizer": {"learning_rate": 0.0}})
