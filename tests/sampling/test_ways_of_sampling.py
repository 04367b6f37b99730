"""Each way of sampling draws the same clip on one device and on eight, and one program serves any number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from tests.sampling.narrow import SETTINGS, assert_nearly_equal, make_toon
from tooncrafter_jax.typing import Device

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


class Way(NamedTuple):
    """A way of sampling.

    Attributes:
      options: of sampling.
      held: how the model is held.
    """

    options: dict[str, Any]
    held: dict[str, Any] = {}  # noqa: RUF012


WAYS = {
    "ddim": Way({}),
    "euler": Way({"solver": "euler", "spacing": "karras", "exact_last_step": True}),
    "heun": Way({"solver": "heun", "spacing": "karras", "exact_last_step": True}),
    "dpmpp_2m": Way({"solver": "dpmpp_2m", "spacing": "karras", "exact_last_step": True}),
    "dpmpp_2m_sde": Way({"solver": "dpmpp_2m_sde"}),
    "unipc": Way({"solver": "unipc", "spacing": "karras", "exact_last_step": True}),
    "student": Way({"solver": "lcm", "guidance_scale": 1.0}),
    "guidance_interval": Way({"guidance_interval": "0.3:20"}),
    "reuse": Way({"reuse": "2"}),
    "sequential_guidance": Way({"sequential_guidance": True}),
    "all_together": Way({"solver": "unipc", "guidance_interval": "0.3:20", "reuse": "2", "sequential_guidance": True}),
    "low_memory": Way({}, {"memory": "low"}),
    "eight_bits": Way({}, {"weight_dtype": "int8"}),
    "eight_bits_and_low_memory": Way({"reuse": "2"}, {"weight_dtype": "int8", "memory": "low"}),
    "tiles": Way({"decode_tile_size": 32}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_eight_devices_draw_the_same_and_steps_compile_nothing(
    way: Way, devices: list[Device], compilations: Callable[[], int]
) -> None:
    coarse = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3), np.uint8)
    first, last = np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8))
    given: dict[str, Any] = {"prompt": "walking man", "seed": 5, **SETTINGS, **way.options}

    def drawn(some: list[Device]) -> np.ndarray:
        toon = make_toon(some, **way.held)
        clip = toon.interpolate(first, last, **given)
        before = compilations()
        assert before > 0
        more = toon.interpolate(first, last, **given | {"steps": given["steps"] + 2})
        assert compilations() == before, "another number of steps is another input of the same program"
        assert (more != clip).mean() > 0.01
        return clip

    alone, spread = drawn(devices[:1]), drawn(devices)
    jax.clear_caches()
    assert alone.shape == (16, 64, 64, 3) and alone.std() > 10
    assert_nearly_equal(spread, alone)
