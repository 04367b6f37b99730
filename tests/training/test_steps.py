"""What a step is, without compiling one: its keys, its forward pass, its gradients' precision, and its errors."""

import types
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.training.small import NARROW_CHANGES, config
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.nn.layers import Linear
from tooncrafter_jax.training import trainer as trainer_module
from tooncrafter_jax.training.components import Components
from tooncrafter_jax.training.lora import LoraConfig
from tooncrafter_jax.training.memory import remedy, told_if_memory_is_short
from tooncrafter_jax.training.sharding import make_mesh
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.denoising import Denoising
from tooncrafter_jax.training.start import Start, architecture
from tooncrafter_jax.training.step import accumulated_gradients
from tooncrafter_jax.training.trainer import Trainer
from tooncrafter_jax.weights.lora import PREFIX


def narrow(stage="rectify", **changes):
    settings = config("", stage, model_changes=NARROW_CHANGES, data={"height": 16, "width": 16}, **changes)
    return make_stage(settings, architecture(settings))


@pytest.mark.usefixtures("unchecked_types")  # of fakes
def test_dropout_does_not_depend_on_jaxs_default_generator():
    stage = types.SimpleNamespace(
        config=types.SimpleNamespace(accumulation=1, seed=3), gradients=lambda params, batch, key, step: key
    )
    state = types.SimpleNamespace(params={}, step=jnp.asarray(5))

    def key() -> Any:
        return accumulated_gradients(cast(Any, stage), cast(Any, state), {})

    usual = jax.random.key_data(key())
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.key_data(key()), usual)


def test_scaled_hints_do_not_depend_on_jaxs_default_generator():
    stage = narrow("sketch", options={"hint_start": "scaled"})
    path = next(p for p in stage.components.abstract_params if p.startswith("sketch_encoder.hint.") and "kernel" in p)
    usual = stage.derive({path})[path].make(None)
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(stage.derive({path})[path].make(None), usual)


@pytest.mark.usefixtures("unchecked_types")  # of fakes
def test_temporal_layers_are_bypassed_in_training_alone():
    stage = narrow(options={"bypass_temporal": True})
    assert isinstance(stage, Denoising)
    asked = []

    def predict_v(noisy, times, conditions, *, bypass_temporal, dropout_key):
        asked.append(bypass_temporal)
        return noisy

    latents, model = jnp.zeros((1, 4, 2, 2, 4)), cast(Any, types.SimpleNamespace(predict_v=predict_v))
    for key in (None, jax.random.key(0)):
        stage.predict(model, latents, jnp.zeros(1, jnp.int32), cast(Any, None), key)
    assert asked == [False, True]


class _Layer(nnx.Module):
    def __init__(self, config, **kw):
        self.linear = Linear(8, 8, **kw)

    def __call__(self, x):
        return self.linear(x)


@pytest.mark.parametrize(("gradient_dtype", "is_exact"), [("float32", True), ("bfloat16", False)])
def test_factors_learn_in_float32_beside_a_frozen_kernel_of_16_bits(gradient_dtype, is_exact):
    network = Network(_Layer, None, dtype=jnp.bfloat16)
    mesh = make_mesh("data:1", jax.devices()[:1])
    components = Components({"net": network}, mesh, LoraConfig(rank=2, alpha=2.0), gradient_dtype)
    draw = np.random.default_rng(0)
    shapes = {"a": (8, 2), "b": (2, 8)}
    factors = {f"{PREFIX}net.linear.kernel.{n}": jnp.asarray(draw.normal(size=s), "float32") for n, s in shapes.items()}
    frozen = {"net.linear.kernel": jnp.asarray(draw.normal(size=(8, 8)), "bfloat16")}
    frozen["net.linear.bias"] = jnp.zeros(8, "bfloat16")
    x = jnp.asarray(draw.normal(size=(64, 8)), "bfloat16")

    def summed(factors):
        return jnp.sum(components.bind("net", frozen | factors)(x).astype(jnp.float32))

    of_kernel = jnp.sum(x.astype(jnp.float32), axis=0)[:, None] * jnp.ones((1, 8))
    found = jax.grad(summed)(factors)[f"{PREFIX}net.linear.kernel.a"]
    error = np.abs(found - of_kernel @ factors[f"{PREFIX}net.linear.kernel.b"].T).max()
    assert (error < 1e-4) == is_exact


def test_memory_that_is_short_is_told_in_a_sentence():
    settings, mesh = config("", remat="none", accumulation=2), make_mesh("data:4", jax.devices()[:4])
    assert remedy(settings, mesh).startswith("set config.remat='blocks'; share the parameters by config.mesh='fsdp:4'")
    mesh = make_mesh("data:1", jax.devices()[:1])
    with pytest.raises(UserError, match=r"to train with config.data.batch=8 and config.accumulation=2: raise .*remat="):
        with told_if_memory_is_short(settings, mesh):
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes")
    with pytest.raises(RuntimeError, match="something else"), told_if_memory_is_short(settings, mesh):
        raise RuntimeError("something else")
    with pytest.raises(UserError, match=r"^mine$"), told_if_memory_is_short(settings, mesh):
        raise UserError("mine") from MemoryError()


@pytest.mark.usefixtures("unchecked_types")  # of fakes
def test_validation_starts_no_processes(tmp_path, monkeypatch):
    class OpenedError(Exception):
        pass

    def open_loader(settings, *, rows):
        raise OpenedError(settings)

    settings = config("", data={"num_workers": 3, "embeddings": "some"}, validation="test")
    trainer = Trainer(settings, tmp_path / "run")
    monkeypatch.setattr(trainer_module.Loader, "open", open_loader)
    with pytest.raises(OpenedError) as found:
        trainer.validate(cast(Any, types.SimpleNamespace(averaged_params={})))
    assert (found.value.args[0].num_workers, found.value.args[0].embeddings) == (0, "")


def test_what_is_made_of_other_parameters_is_made_by_one_program(monkeypatch):
    stage = narrow("sketch")
    mesh = make_mesh("data:1", jax.devices()[:1])
    start = Start(stage)
    paths = [path for path in stage.components.abstract_params if path.startswith("sketch_encoder.down.")]
    assert len(paths) > 10
    compiled, jit = [], jax.jit
    monkeypatch.setattr(jax, "jit", lambda function, **kw: compiled.append(function) or jit(function, **kw))
    made = start.load(paths, mesh)
    monkeypatch.undo()
    assert len(compiled) == 1
    expected = start.load_on_host(paths)
    assert set(made) == set(paths)
    for path, value in made.items():
        np.testing.assert_allclose(np.asarray(value, np.float32), expected[path], rtol=1e-2)
