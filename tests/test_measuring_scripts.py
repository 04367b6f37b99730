"""Scripts that look into networks find what they look for, wherever the code stands by now."""

import runpy
from pathlib import Path

import pytest

from tooncrafter_jax.models.configuration import preset

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize("network", ["unet", "decoder"])
def test_all_kinds_of_calls_of_a_network_are_found(network):
    script = runpy.run_path(str(SCRIPTS / "measure_cpu.py"))
    calls = script["calls_of"](network, preset("tiny"), 64, 64)
    kinds = {call.kind for call in calls.counts}
    assert kinds == set(script["KINDS"])
    assert all(call.operations > 0 for call in calls.counts)
