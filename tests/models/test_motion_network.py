"""The motion network: RIFE's flows, and what sketches change in them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_networks import values
from tests.reference import noise_params
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.motion_network import MotionNetwork
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.rife import Rife, RifeConfig
from tooncrafter_jax.nn.warping import resized

pytestmark = pytest.mark.heavy

HEIGHT, WIDTH, FRAMES = 64, 64, 5
CONFIG = replace(tiny().motion, flow=RifeConfig((16, 16, 8, 8), (2, 2, 1, 1), 1), refinement_scales=(2, 1))


@cache
def network() -> Network[Any]:
    return Network(MotionNetwork, CONFIG)


@cache
def compiled() -> Any:
    return jax.jit(lambda params, ends, hints: network().bind(params)(ends, FRAMES, hints))


@cache
def params(zero_heads: bool = False) -> dict[str, jax.Array]:
    made = noise_params(network())
    is_head = [path.startswith("refinement.") and ".head." in path for path in made]
    return {
        path: value * (0.0 if zero_heads else 0.1) if head else value
        for (path, value), head in zip(made.items(), is_head, strict=True)
    }


def ends(height: int = HEIGHT, width: int = WIDTH) -> jax.Array:
    return jnp.tanh(values("ends", 2, 2, height, width, 3))


def sketch(frame: int) -> jax.Array:
    """Lines in one frame of the second clip alone."""
    return jnp.zeros((2, FRAMES, HEIGHT, WIDTH, 1)).at[1, frame, 20:24, 10:50].set(1.0)


@pytest.mark.gate
def test_without_what_a_refinement_has_learned_the_motion_is_rifes() -> None:
    found: Motion = compiled()(params(zero_heads=True), ends(), sketch(2))
    own = {path.removeprefix("flow."): value for path, value in params().items() if path.startswith("flow.")}
    rife = Network(Rife, CONFIG.flow)
    first, last = (jnp.repeat(ends()[:, i], FRAMES - 2, axis=0) for i in range(2))
    times = jnp.tile(jnp.asarray([0.25, 0.5, 0.75]), 2)
    flows, logit = jax.jit(lambda params: rife.bind(params).estimate(first, last, times))(own)
    np.testing.assert_allclose(found.flows[:, 1:-1].reshape(flows.shape), flows, atol=1e-3)
    np.testing.assert_allclose(found.share[:, 1:-1].reshape(logit.shape), jax.nn.sigmoid(logit), atol=1e-4)
    np.testing.assert_array_equal(found.flows[:, jnp.asarray([0, -1])], 0.0)
    np.testing.assert_array_equal(found.share[:, 0], 1.0)
    np.testing.assert_array_equal(found.share[:, -1], 0.0)


def test_a_sketch_bends_the_motion_of_its_own_clip_and_of_the_frames_beside_it() -> None:
    run = partial(compiled(), params(), ends())
    alone, bent = run(jnp.zeros_like(sketch(2))), run(sketch(2))
    moved = jnp.abs(bent.flows - alone.flows).max(axis=(2, 3, 4))
    np.testing.assert_array_equal(moved[0], 0.0)
    assert (moved[1, 1:-1] > 1e-3).all(), moved
    assert moved[1, 2] == moved[1].max()
    np.testing.assert_array_equal(moved[1, jnp.asarray([0, -1])], 0.0)


def test_no_sketches_are_empty_sketches() -> None:
    run = jax.jit(lambda params, ends: network().bind(params)(ends, FRAMES))
    alone, empty = run(params(), ends()), compiled()(params(), ends(), jnp.zeros_like(sketch(2)))
    np.testing.assert_allclose(alone.flows, empty.flows, atol=1e-4)


def test_flows_between_enlarged_lines_in_both_directions() -> None:
    """They are RIFE's of larger drawings, both ways; between pictures nothing changes."""
    config = replace(
        CONFIG, refinement_widths=(), refinement_scales=(), through_sketches=True, enlargement=2, both_ways=True
    )
    built = Network(MotionNetwork, config)
    own = {path: params()[path] for path in built.abstract_params if path.startswith("flow.")}
    own |= {path: jnp.zeros(leaf.shape) for path, leaf in built.abstract_params.items() if path not in own}
    first, last = (ends()[:, end] for end in range(2))
    middle = jnp.asarray([0.5, 0.5])

    def between_lines(params: Any, first: jax.Array, last: jax.Array) -> Any:
        return built.bind(params)._between_lines(first, last, middle)  # noqa: SLF001

    found, swapped = (jax.jit(between_lines)(own, *pair) for pair in ((first, last), (last, first)))
    rife = Network(Rife, CONFIG.flow).bind({path.removeprefix("flow."): value for path, value in own.items()})
    large = [resized(picture, 2 * HEIGHT, 2 * WIDTH) for picture in (first, last)]
    there, back = (jax.jit(rife.estimate)(*pair, middle) for pair in (large, large[::-1]))
    both = (there[0] + jnp.concatenate([back[0][..., 2:], back[0][..., :2]], axis=-1)) / 2
    np.testing.assert_allclose(found[0], resized(both, HEIGHT, WIDTH) / 2, atol=1e-3)
    np.testing.assert_allclose(found[1], resized((there[1] - back[1]) / 2, HEIGHT, WIDTH), atol=1e-4)
    np.testing.assert_allclose(found[0], jnp.roll(swapped[0], 2, axis=-1), atol=1e-3)
    still = replace(config, enlargement=1, both_ways=False)
    alone, other = (
        jax.jit(Network(MotionNetwork, one).bind(own).__call__, static_argnums=1)(ends(), FRAMES)
        for one in (config, still)
    )
    np.testing.assert_array_equal(alone.flows, other.flows)


@pytest.mark.gate
def test_pictures_of_any_size_are_padded_and_cut() -> None:
    height, width, multiple = 40, 56, CONFIG.pixel_multiple
    given = ends(height, width)
    found = jax.jit(lambda params: network().bind(params)(given, FRAMES))(params())
    assert found.flows.shape == (2, FRAMES, height, width, 4)
    border = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    padded = jnp.pad(given, ((0, 0), (0, 0), *border), mode="edge")
    assert padded.shape != given.shape
    whole = jax.jit(lambda params: network().bind(params)(padded, FRAMES))(params())
    np.testing.assert_allclose(found.flows, whole.flows[:, :, :height, :width], atol=1e-3)
    np.testing.assert_allclose(found.share, whole.share[:, :, :height, :width], atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"flow": RifeConfig((), ())}, "motion.flow.widths is empty"),
        ({"refinement_scales": (4,)}, "motion.refinement_widths has 2 entries and motion.refinement_scales 1"),
        (
            {"flow": RifeConfig(scales=(8, 4, 3, 1))},
            "motion.flow.scales is (8, 4, 3, 1), but must be of 1, 2, 4, 8, 16",
        ),
        ({"enlargement": 0}, "motion.enlargement is 0, which is too small"),
        ({"refinement_widths": (16, 1)}, "a block needs 2 channels"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        replace(tiny(), motion=replace(tiny().motion, **changes)).check("model.json")
