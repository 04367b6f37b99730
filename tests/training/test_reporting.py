"""What a run tells of its speed: utilisation where the device's peak is known, and a profile of a few steps."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import config
from tooncrafter_jax.planning import utilisation
from tooncrafter_jax.planning.plan import minimum_flops
from tooncrafter_jax.training import reporting
from tooncrafter_jax.training.profiling import TRACED, WARM_UP, Profile
from tooncrafter_jax.training.reporting import Reporter, mean_of_batches
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
    reporter = Reporter(tmp_path, steps=2, done=0, clips=8, seconds_at_peak=0.5)
    reporter.advance(0.0)
    reporter.advance(1.0)
    now[0] += 4.0
    reporter.training(2, {"loss": jnp.asarray(1.5)})
    reporter.close()
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line == {
        "step": 2,
        "loss": 1.5,
        "seconds_per_step": 2.0,
        "clips_per_second": 4.0,
        "data_wait_share": 0.25,
        "model_flop_utilisation": 0.25,
    }


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
