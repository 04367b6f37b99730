"""The published size: one forward of every component in float32 (make test-full-size)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNTS = {  # spec section 1, less what never runs
    "clip_text": 340_387_840,
    "clip_image": 630_763_520,
    "image_projector": 48_787_456,
    "autoencoder": 34_163_664,
    "sketch_encoder": 364_227_952,
    "unet": 1_438_854_980,
}


@pytest.mark.full_size
@pytest.mark.parametrize("component", COUNTS)
def test_forward(component: str) -> None:
    """Each component in a process of its own, so that the peak memory is its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.full_size.forward", component],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert report["parameters"] == COUNTS[component]
    assert report["finite"]
    assert 0.05 < report["std"] < 20, "the activations neither die nor explode under the rule's unit-gain weights"
