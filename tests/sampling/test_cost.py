"""What a run of the denoiser costs."""

import pytest

from tooncrafter_jax.models.configuration import preset
from tooncrafter_jax.sampling.cost import Passes, denoiser_flops, passes
from tooncrafter_jax.sampling.sampling_options import SamplingOptions

GUIDED = {"guidance_scale": 7.5}
UNGUIDED = {"guidance_scale": 1.0}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 50, **GUIDED}, Passes(100, 0)),
        ({"steps": 50, **UNGUIDED}, Passes(50, 0)),
        ({"steps": 10, "image_guidance_scale": 2.0, **GUIDED}, Passes(30, 0)),
        ({"steps": 10, "solver": "heun", **UNGUIDED}, Passes(19, 0)),
        ({"steps": 10, "timesteps": "999,500,100", **GUIDED}, Passes(6, 0)),
        ({"steps": 12, "reuse": "3", **GUIDED}, Passes(8, 16)),
        ({"steps": 10, "guidance_interval": "0:inf", **GUIDED}, Passes(20, 0)),
        ({"steps": 10, "guidance_interval": "1e9:inf", **GUIDED}, Passes(11, 0)),
        # An interval that holds all but the first of ten: that one has a pass, and reuse begins anew behind it.
        ({"steps": 10, "guidance_interval": "0:1e3", "reuse": "2", **GUIDED}, Passes(1 + 2 * 5, 2 * 4)),
    ],
)
def test_passes_by_hand(options, expected):
    assert passes(preset("tiny"), SamplingOptions(**options)) == expected


def test_operations_follow_the_passes():
    config = preset("tiny")

    def flops(**options):
        return denoiser_flops(config, SamplingOptions(frames=4, height=64, width=64, **options))

    one = flops(steps=1, **UNGUIDED)
    assert one > 0
    assert flops(steps=7, **GUIDED) == pytest.approx(14 * one, rel=1e-9)
    reused = flops(steps=4, reuse="4", **UNGUIDED)
    assert one < reused < 4 * one
