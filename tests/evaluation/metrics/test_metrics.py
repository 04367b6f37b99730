"""Metrics by name: what is asked for is made, and no weights are read for what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.curation import small_clip
from tests.evaluation.metrics.clips import batch, changed_clips, clips
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics import METRICS, NEED_CLIP, Metric, MetricWeightFiles, make_metrics
from tooncrafter_jax.zoo import metric_weights as weight_files

WITHOUT_NETWORKS = tuple(name for name, entry in METRICS.items() if entry.needs is None)


def test_metrics_without_a_network_read_no_weights(tmp_path: Path) -> None:
    metrics = make_metrics(WITHOUT_NETWORKS, MetricWeightFiles(tmp_path / "missing"))
    assert [metric.name for metric in metrics] == list(WITHOUT_NETWORKS)
    both = batch(changed_clips(2, 3, 70, 80), clips(2, 3, 70, 80))
    for metric in metrics:
        rows = metric.measure(both)
        assert {len(row) for row in rows.values()} == {2}
        assert np.isfinite(metric.summarise(rows))


@pytest.mark.parametrize("name", [name for name, entry in METRICS.items() if entry.needs == "networks"])
def test_missing_weights_are_named_with_the_command_that_fetches_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="fetch-metric-weights --metric-weights="):
        make_metrics([name], MetricWeightFiles(tmp_path))


def test_every_metric_has_its_name(metric_weights: Path, tmp_path: Path) -> None:
    weights = MetricWeightFiles(metric_weights, small_clip.saved(tmp_path, small_clip.tensors()))
    metrics = make_metrics(METRICS, weights)
    assert [metric.name for metric in metrics] == list(METRICS)
    assert all(isinstance(metric, Metric) for metric in metrics)
    assert len({metric.title for metric in metrics}) == len(METRICS)
    better = {metric.name: metric.better for metric in metrics}
    distances, likenesses = ("fvd", "kvd", "lpips_alexnet", "lpips_vgg16", "flicker"), ("psnr", "ssim", "clip_image")
    assert {better[name] for name in distances} == {"lower"} and {better[name] for name in likenesses} == {"higher"}
    assert set(better.values()) == {"lower", "higher"}


def test_i3d_is_read_once_for_all_methods(metric_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = weight_files.load_network
    monkeypatch.setattr(
        weight_files,
        "load_network",
        lambda network, weights, cache: read.append(weights.name) or load(network, weights, cache),
    )
    weights = MetricWeightFiles(metric_weights)
    for _ in range(2):
        make_metrics(["fvd", "kvd"], weights)
    assert read == ["i3d_kinetics400"]


def test_clip_without_weights() -> None:
    for name in NEED_CLIP:
        with pytest.raises(UserError, match="needs weights of CLIP"):
            make_metrics([name])


@pytest.mark.parametrize(("name", "near"), [("lpips", "lpips_vgg16"), ("FVD", "fvd"), ("color_drift", "colour_drift")])
def test_an_unknown_name(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f"no metric '{name}': did you mean '{near}'"):
        make_metrics(["psnr", name])
