"""A step that is not finite counts as a step, but not in the schedule: what is logged is what the optimizer uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.training.run_config import OptimizerConfig, TrainConfig
from tooncrafter_jax.training.stages.stage import MODEL, Gradients, Stage
from tooncrafter_jax.training.state import new_state
from tooncrafter_jax.training.step import make_step

PATH = "unet.conv_out.bias"


class Slope(Stage):
    """A stage of one number, whose gradient is what the batch says."""

    def __init__(self, config):
        self.config, self.is_trained = config, lambda path: path == PATH

    def gradients(self, params, batch, key, step):
        return Gradients({"any": jnp.zeros(())}, {MODEL: {PATH: batch["gradient"]}}, {}, {})


@pytest.mark.parametrize("name", ["adamw", "adam", "muon"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_logged_rate_is_the_one_that_is_used(name, schedule):
    """Without momentum an update by an ever equal gradient is as long as the rate, so that the updates themselves tell
    the rate.
    """
    optimizer = OptimizerConfig(
        name=name, learning_rate=1.0, schedule=schedule, warmup_steps=4, beta1=0.0, weight_decay=0.0, clip_norm=0.0
    )
    stage = Slope(TrainConfig(steps=12, optimizer=optimizer, ema_decay=0.5))
    state = jax.jit(lambda params: new_state(stage, params))({PATH: jnp.zeros(1)})
    step, rates = make_step(stage), []
    for number in range(8):
        before = float(state.trained[PATH][0])
        skipped = number in (1, 2, 5)
        state, metrics = step(state, {"gradient": jnp.full(1, np.nan if skipped else 1.0)})
        moved = before - float(state.trained[PATH][0])
        assert moved == pytest.approx(0.0 if skipped else float(metrics["learning_rate"]), abs=1e-5)
        rates.append(float(metrics["learning_rate"]))
        counts = [int(leaf) for leaf in jax.tree.leaves(state.optimizer) if leaf.dtype == jnp.int32]
        assert counts and set(counts) == {int(state.updates)}
    assert (int(state.step), int(state.skipped), int(state.updates)) == (8, 3, 5)
    assert rates[:6] == [0.0, 0.25, 0.25, 0.25, 0.5, 0.75], "the warm-up waits for steps that count"
