"""What a run tells of its speed: utilisation where the device's peak is known, and a profile of a few steps."""

import json
import math
import threading
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import config
from tooncrafter_jax.notes import collected
from tooncrafter_jax.planning import utilisation
from tooncrafter_jax.planning.plan import minimum_flops
from tooncrafter_jax.training import reporting
from tooncrafter_jax.training.profiling import TRACED, WARM_UP, Profile
from tooncrafter_jax.training.reporting import Reporter, in_background, mean_of_batches
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture


@pytest.mark.gate
def test_seconds_at_peak_leave_out_what_is_computed_again(tmp_path, monkeypatch):
    settings = config(tmp_path, dtype="bfloat16", remat="blocks")
    model = architecture(settings)
    assert utilisation.seconds_at_peak(settings, model) is None, "the peak of a CPU is not known"
    monkeypatch.setattr(utilisation, "PEAK_FLOPS", {jax.devices()[0].device_kind: 1e12})
    flops = minimum_flops(make_stage(settings, model))
    assert flops.recomputed > 0
    expected = (flops.forward + flops.backward) / (1e12 * jax.device_count())
    assert utilisation.seconds_at_peak(settings, model) == pytest.approx(expected)
    assert utilisation.seconds_at_peak(config(tmp_path, dtype="float32"), model) is None


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12)],
)
def test_kinds_of_devices(monkeypatch, kind, peak):
    class Device:
        device_kind = kind

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert utilisation.peak_flops() == 4 * peak


def test_utilisation_is_reported(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: now[0])
    at_peak: Future[float | None] = Future()
    reporter = Reporter(tmp_path, steps=2, done=0, clips=8, seconds_at_peak=at_peak)
    reporter.advance(0.0)
    assert "model_flop_utilisation" not in reporter.training(0, {"loss": jnp.asarray(1.5)})
    at_peak.set_result(0.5)
    reporter.advance(0.0)
    reporter.advance(1.0)
    now[0] += 4.0
    reporter.training(2, {"loss": jnp.asarray(1.5)})
    reporter.close()
    _, line = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line == {
        "step": 2,
        "loss": 1.5,
        "seconds_per_step": 2.0,
        "clips_per_second": 4.0,
        "data_wait_share": 0.25,
        "model_flop_utilisation": 0.25,
    }


def test_an_estimate_that_fails_ends_no_run(tmp_path):
    at_peak: Future[float | None] = Future()
    at_peak.set_exception(NotImplementedError("no such operation"))
    reporter = Reporter(tmp_path, steps=2, done=0, clips=8, seconds_at_peak=at_peak)
    with collected() as notes:
        for step in (1, 2):
            reporter.advance(0.0)
            assert "model_flop_utilisation" not in reporter.training(step, {"loss": jnp.asarray(1.5)})
    reporter.close()
    assert len(notes) == 1 and "cannot be estimated (NotImplementedError: no such operation)" in notes[0]


def test_what_takes_long_to_compute_is_not_waited_for():
    waiting = threading.Event()
    future = in_background(lambda: waiting.wait(60))
    assert not future.done()
    waiting.set()
    assert future.result(60) is True
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 / 0).result(60)


def test_lines_of_steps_that_are_taken_again_are_dropped(tmp_path):
    """And one that was cut off; what was validated after the last step that counts need not be again."""
    file = tmp_path / "metrics.jsonl"
    lines = [{"step": 2, "loss": 1.0}, {"step": 2, "validation/loss": 2.0}, {"step": 3, "loss": 1.0}]

    def going_on_after(done):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
        reporter = Reporter(tmp_path, steps=9, done=done, clips=8)
        reporter.write(4, {"loss": math.nan, "psnr": 3.0})
        reporter.close()
        text = file.read_text()
        assert "NaN" not in text
        return reporter, [json.loads(line) for line in text.splitlines()]

    reporter, found = going_on_after(2)
    assert found == [*lines[:2], {"step": 4, "loss": None, "psnr": 3.0}]
    assert reporter.has_validated(2) and not reporter.has_validated(1) and not reporter.has_validated(4)
    reporter, found = going_on_after(3)
    assert found[:-1] == lines and not reporter.has_validated(3)
    reporter, found = going_on_after(0)
    assert len(found) == 1 and not reporter.has_validated(0)


def test_means_of_batches_count_clips_not_batches():
    zero, one = np.zeros(10), np.eye(10)[3]
    full = {"clips": 4, "loss": 1.0, "loss_by_time": 6 * one, "clips_by_time": 2 * one}
    last = {"clips": 1, "loss": 6.0, "loss_by_time": 6 * one, "clips_by_time": one}
    assert mean_of_batches([full, last]) == {"loss": 2.0, "loss_by_time/3": 4.0}
    empty = {"clips": 0, "loss": 0.0, "loss_by_time": zero, "clips_by_time": zero}
    assert mean_of_batches([last, empty]) == {"loss": 6.0, "loss_by_time/3": 6.0}


@pytest.mark.parametrize(("steps", "traces"), [(WARM_UP, 0), (WARM_UP + 1, 1), (WARM_UP + TRACED + 2, 1)])
def test_a_profile_of_a_few_steps(tmp_path, steps, traces):
    profile = Profile(tmp_path)
    for number in range(steps):
        profile.before_step()
        profile.after_step(jnp.asarray(number) + 1)
    profile.close()
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == traces
