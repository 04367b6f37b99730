"""What is carried along flows: key frames as they are, frames between from where their flows point to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_networks import values
from tests.reference import noise_params
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.unet_blocks import BlockOptions, TemporalTransformer

HEIGHT, WIDTH, BETWEEN = 8, 12, 3


def moved_right(pixels: float, share: float = 0.5) -> Motion:
    """All content moves to the right by so many pixels from the first frame to the last, evenly."""
    time = jnp.arange(1, BETWEEN + 1)[None, :, None, None, None] / (BETWEEN + 1)
    flows = jnp.broadcast_to(
        jnp.concatenate([-time * pixels, 0 * time, (1 - time) * pixels, 0 * time], axis=-1),
        (1, BETWEEN, HEIGHT, WIDTH, 4),
    )
    return Motion.of_frames_between(flows, jnp.full((1, BETWEEN, HEIGHT, WIDTH, 1), share))


def features(*shape: int) -> jax.Array:
    return values("features", 1, BETWEEN + 2, *shape)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_key_frames_stay_bit_by_bit_and_the_dtype_too(dtype: jnp.dtype) -> None:
    given = features(HEIGHT, WIDTH, 3).astype(dtype)
    carried = moved_right(4.0).carried(given)
    assert carried.dtype == dtype
    np.testing.assert_array_equal(carried[:, jnp.asarray([0, -1])], given[:, jnp.asarray([0, -1])])


def test_frames_between_are_fetched_from_the_key_frames() -> None:
    """A quarter of the way along four pixels: one to the left in the first frame, three to the right in the last."""
    given = features(HEIGHT, WIDTH, 3)
    first, last = given[:, 0, :, 2:6], given[:, -1, :, 6:10]
    for share in (0.0, 0.25, 1.0):
        frame = moved_right(4.0, share).carried(given)[:, 1, :, 3:7]
        np.testing.assert_allclose(frame, share * first + (1 - share) * last, atol=1e-6)


def test_each_level_is_resampled_from_pixels_and_counts_in_its_own_cells() -> None:
    motion = moved_right(4.0)
    for level, given in enumerate(motion.at_levels(HEIGHT, WIDTH, 3)):
        assert given.flows.shape == (1, BETWEEN + 2, HEIGHT >> level, WIDTH >> level, 4)
        np.testing.assert_allclose(
            given.flows, motion.flows[:, :, : HEIGHT >> level, : WIDTH >> level] / 2**level, atol=1e-6
        )
        np.testing.assert_array_equal(given.share[:, 0], 1.0)
        np.testing.assert_array_equal(given.share[:, -1], 0.0)


@pytest.mark.gate
def test_guidance_averages_the_blocks_with_and_without_what_is_carried() -> None:
    """Where every frame is alike and nothing moves, carrying changes nothing, and so does guidance."""
    options = BlockOptions(16, 8, 8, 1, 0.1, temporal=True, image_stream=True, norm_groups=32)
    network = Network(lambda _, **kw: TemporalTransformer(32, 4, options, **kw), None)
    params = noise_params(network)

    @jax.jit
    def run(params: dict[str, jax.Array], x: jax.Array, motion: Motion | None) -> jax.Array:
        return network.bind(params)(x, motion)

    still = jnp.repeat(features(HEIGHT, WIDTH, 32)[:, :1], BETWEEN + 2, axis=1)
    np.testing.assert_allclose(run(params, still, moved_right(0.0)), run(params, still, None), rtol=1e-5, atol=1e-5)
    moving = features(HEIGHT, WIDTH, 32)
    assert float(jnp.abs(run(params, moving, moved_right(0.0)) - run(params, moving, None)).max()) > 0.1, (
        "zero is not off"
    )
