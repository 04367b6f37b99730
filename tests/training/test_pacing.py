"""How far the host runs ahead of the devices, and which time counts as the steps'."""

import dataclasses
import json
import time
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import pytest

from tooncrafter_jax.training import trainer as trainer_module
from tooncrafter_jax.training.pacing import IN_FLIGHT, Pacing
from tooncrafter_jax.training.reporting import Reporter
from tooncrafter_jax.training.trainer import Trainer

STEPS = 6


@pytest.fixture(scope="module")
def slow_step():
    """A step of some tens of milliseconds, (state) -> (state, metric), as asynchronous as any."""

    @jax.jit
    def step(state):
        state = jax.lax.fori_loop(0, 60, lambda _, x: jnp.tanh(x @ x), state)
        return state, state.sum()

    state = jnp.ones((384, 384))
    jax.block_until_ready(step(state))
    return step, state


def most_in_flight(step, state, pacing):
    results, most = [], 0
    for _ in range(10):
        if pacing is not None:
            pacing.before_step()
        state, metric = step(state)
        results.append(metric)
        if pacing is not None:
            pacing.after_step(metric)
        most = max(most, sum(not result.is_ready() for result in results))
    if pacing is not None:
        pacing.finish()
        assert all(result.is_ready() for result in results)
    return most


def test_the_host_is_held_back(slow_step):
    step, state = slow_step
    assert most_in_flight(step, state, None) > IN_FLIGHT, "without a bound it runs ahead"
    assert 1 <= most_in_flight(step, state, Pacing()) <= IN_FLIGHT


@pytest.fixture(scope="module")
def run(rectify, tmp_path_factory):
    """A run of which validation takes a second longer: (unfinished steps at each dispatch, its lines of metrics,
    seconds).
    """
    stage, mesh, step, _, _ = rectify
    workdir, losses, unfinished = tmp_path_factory.mktemp("run"), [], []

    def observed(state, batch):
        unfinished.append(1 + sum(not loss.is_ready() for loss in losses))
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
        return state, metrics

    settings = dataclasses.replace(
        stage.config, steps=STEPS, log_every=2, validation="test", validate_every=2, sample_every=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "run_mesh", lambda *_: mesh)  # one of the eight devices
        patch.setattr(trainer_module, "make_step", lambda *_: observed)
        trainer = Trainer(settings, workdir)
        validate = trainer.validate

        def slowly(state):
            found = validate(state)
            time.sleep(1.0)
            return found

        patch.setattr(trainer, "validate", slowly)
        started = time.monotonic()
        outcome = trainer.run()
        seconds = time.monotonic() - started
    assert outcome.finished and outcome.step == STEPS
    return unfinished, [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()], seconds


@pytest.mark.gate
def test_a_run_has_two_steps_in_flight_at_most(run):
    unfinished, _, _ = run
    assert len(unfinished) == STEPS and max(unfinished) <= IN_FLIGHT


@pytest.mark.gate
def test_speed_is_that_of_steps_alone(run):
    """Validation at steps 0, 2, 4 and 6 takes a second and more each; two steps on this size take less than that."""
    _, lines, seconds = run
    reports = [line for line in lines if "seconds_per_step" in line]
    assert [line["step"] for line in reports] == [2, 4, 6]
    assert len([line for line in lines if "validation/loss" in line]) == 4
    in_steps = sum(2 * line["seconds_per_step"] for line in reports)
    assert 0 < in_steps < seconds - 4.0


def test_the_clock_stands_still_where_it_is_told_to(tmp_path):
    at_peak: Future[float | None] = Future()
    at_peak.set_result(0.1)
    reporter = Reporter(tmp_path, steps=2, done=0, clips=8, seconds_at_peak=at_peak)
    reporter.advance(0.0)
    time.sleep(0.2)
    with reporter.paused():
        time.sleep(1.0)
    found = reporter.training(1, {"loss": jnp.asarray(1.0)})
    reporter.advance(0.0)
    time.sleep(0.2)
    after = reporter.training(2, {"loss": jnp.asarray(1.0)})
    reporter.close()
    for report in (found, after):
        assert 0.2 <= report["seconds_per_step"] < 0.9
        assert report["clips_per_second"] == pytest.approx(8 / report["seconds_per_step"])
        assert report["model_flop_utilisation"] == pytest.approx(0.1 / report["seconds_per_step"])
