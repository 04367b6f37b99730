"""Low-rank adaptation: only factors learn, and what is exported merges into the model that was trained."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.training.small import config
from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.training.checkpoints import export
from tooncrafter_jax.training.sharding import make_mesh, put_batch, step_rows
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import Start, architecture
from tooncrafter_jax.training.step import make_step
from tooncrafter_jax.weights.lora import PREFIX, load_lora, merged


def without_zeros(value):
    """A fresh denoiser's last layers are zeros, through which nothing learns."""
    return value if value.ndim < 2 or value.any() else jax.numpy.full_like(value, 0.02).at[..., ::2].set(-0.01)


@pytest.mark.gate
def test_factors_of_matrices_and_convolutions_learn_and_merge(clips, tmp_path):
    lora = {"rank": 2, "alpha": 4.0, "targets": ["attention.", "conv_in"]}
    settings = config(clips, options={"lora": lora}, optimizer={"learning_rate": 1e-2})
    mesh = make_mesh("data:1", jax.devices()[:1])
    stage = make_stage(settings, architecture(settings), mesh)
    assert any(len(stage.components.abstract_params[path].shape) == 4 for path in stage.lora_targets)
    state, step = Start(stage).state(mesh), make_step(stage, mesh)
    state = dataclasses.replace(state, frozen={path: without_zeros(value) for path, value in state.frozen.items()})
    before = {path: np.asarray(value) for path, value in state.trained.items()}
    assert all(path.startswith(PREFIX) for path in before)
    with Loader.open(settings.data) as loader:
        rows = put_batch(step_rows(next(loader)), mesh)
    losses = []
    for _ in range(5):
        state, metrics = step(state, rows)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert not [path for path, value in state.trained.items() if np.array_equal(value, before[path])]

    export(tmp_path, stage, state, model=stage.model, provenance={})
    factors = load_lora(tmp_path / "lora.safetensors")
    assert set(factors.factors) == set(before)
    by_component = {}
    for path, value in state.params.items():
        if not path.startswith(PREFIX):
            component, _, name = path.partition(".")
            by_component.setdefault(component, {})[name] = value
    whole = {f"{c}.{name}": value for c, tree in merged(by_component, factors).items() for name, value in tree.items()}
    plain = make_stage(config(clips), architecture(settings), mesh)
    adapted, by_merging = (
        float(jax.jit(lambda p, s=each: s.loss(p, rows, None)[0])(params))
        for each, params in ((stage, state.params), (plain, whole))
    )
    np.testing.assert_allclose(by_merging, adapted, rtol=1e-5)
    untrained = float(jax.jit(lambda p: plain.loss(p, rows, None)[0])(dict(state.params)))
    assert abs(untrained - adapted) > 1e-4 * adapted
