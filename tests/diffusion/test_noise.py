"""A clip's noise depends on its own seed and its frames, and on nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tooncrafter_jax.diffusion.noise import Stream, clip_noise, clip_timesteps
from tooncrafter_jax.typing import Device

FRAME = (4, 6, 4)


def draw(seeds: list[int], frames: list[int], stream: Stream = Stream.INITIAL, step: int = 0) -> np.ndarray:
    return np.asarray(clip_noise(jnp.asarray(seeds, jnp.uint32), stream, jnp.asarray(frames), FRAME, step))


def test_independent_of_batch_and_position() -> None:
    alone = draw([7], list(range(4)))
    np.testing.assert_array_equal(draw([3, 9, 7], list(range(4)))[2:], alone)
    np.testing.assert_array_equal(draw([7, 3], list(range(4)))[:1], alone)


def test_independent_of_the_number_and_order_of_frames() -> None:
    sixteen = draw([7], list(range(16)))
    np.testing.assert_array_equal(draw([7], list(range(5))), sixteen[:, :5])
    np.testing.assert_array_equal(draw([7], [15, 0]), sixteen[:, [15, 0]])


def test_independent_of_the_devices(devices: list[Device]) -> None:
    seeds, frames = jnp.asarray([7, 2**32 - 1], jnp.uint32), jnp.arange(8)
    mesh = Mesh(np.asarray(devices).reshape(2, 4), ("data", "frames"), axis_types=(AxisType.Auto,) * 2)
    run = jax.jit(
        lambda seeds, frames: clip_noise(seeds, Stream.INITIAL, frames, FRAME),
        out_shardings=NamedSharding(mesh, PartitionSpec("data", "frames")),
    )
    sharded = run(seeds, frames)
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_array_equal(sharded, clip_noise(seeds, Stream.INITIAL, frames, FRAME))


def test_independent_of_the_users_choice_of_generator() -> None:
    noise = draw([7, 8], [0, 3])
    times = np.asarray(clip_timesteps(jnp.arange(8, dtype=jnp.uint32), 1000))
    with jax.default_prng_impl("rbg"):
        assert "fry" not in str(jax.random.key(0).dtype)
        np.testing.assert_array_equal(draw([7, 8], [0, 3]), noise)
        np.testing.assert_array_equal(clip_timesteps(jnp.arange(8, dtype=jnp.uint32), 1000), times)


def test_the_last_time_has_its_share_and_the_other_clips_keep_theirs() -> None:
    seeds = jnp.arange(4000, dtype=jnp.uint32)
    even, some, only = (np.asarray(clip_timesteps(seeds, 1000, share)) for share in (0.0, 0.7, 1.0))
    assert (only == 999).all()
    changed = some != even
    assert (some[changed] == 999).all() and changed.mean() == pytest.approx(0.7, abs=0.03)
    # Whether a clip has the last time says nothing about the time that it would have had.
    assert even[changed].mean() == pytest.approx(even[~changed].mean(), abs=40)


def test_seeds_frames_streams_and_steps_are_independent() -> None:
    """No two of them agree, nor are they correlated beyond chance."""
    draws = [
        draw([seed], [frame], stream, step).reshape(-1)
        for seed in (0, 1, 2**32 - 1)
        for frame in (0, 1)
        for stream in Stream
        for step in (0, 1)
    ]
    correlation = np.corrcoef(np.stack(draws)) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5.5 / np.sqrt(len(draws[0]))  # 630 pairs: five and a half standard errors


def test_standard_normal() -> None:
    values = draw(list(range(8)), list(range(16)))
    assert values.dtype == np.float32
    count = values.size
    assert abs(values.mean()) < 5 / np.sqrt(count)
    assert abs(values.std() - 1) < 5 / np.sqrt(2 * count)
    assert abs((np.abs(values) < 1).mean() - 0.682689) < 5 * np.sqrt(0.22 / count)
