"""Motion through sketches, with flows of a world that is known: a picture that is moved to the right."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.models.sketched_motion import InnerMotion, Known, _neighbours, through_sketches

SIZE, FRAMES = 32, 7
PLACES = np.asarray([0, 1, 2, 3, 8, 9, 12])
"""Where the square is in each frame: it jumps between frames 3 and 4. RIFE's own way would be even."""


def pictures(places: Any) -> jnp.ndarray:
    """A bright square on black for each place."""
    found = -np.ones((len(places), SIZE, SIZE, 3), np.float32)
    for picture, place in zip(found, places, strict=True):
        picture[12:20, 4 + place : 12 + place] = 1.0
    return jnp.asarray(found)


def lines(images: jnp.ndarray) -> jnp.ndarray:
    """What is bright, in the place of lines."""
    return (images[..., :1] + 1) / 2


def place_of(images: jnp.ndarray) -> jnp.ndarray:
    """Where the square is: from the mean column of what differs from the picture's corner."""
    there = jnp.abs(images - images[:, :1, :1]).sum((1, 3))
    return (there * jnp.arange(SIZE)).sum(1) / there.sum(1)


def estimate(first: jnp.ndarray, last: jnp.ndarray, times: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """The true flows of an even motion between two pictures; either shows all that there is."""
    way = place_of(last) - place_of(first)
    flows = jnp.zeros((*first.shape[:3], 4))
    flows = flows.at[..., 0].set((-times * way)[:, None, None]).at[..., 2].set(((1 - times) * way)[:, None, None])
    return flows, jnp.zeros((*first.shape[:3], 1))


@pytest.fixture
def world() -> Known:
    """With a sketch of each frame between."""
    video = pictures(PLACES)
    ends, count = video[jnp.asarray([0, -1])], FRAMES - 2
    times = jnp.arange(1, count + 1) / (count + 1)
    flows, logit = estimate(jnp.repeat(ends[:1], count, 0), jnp.repeat(ends[1:], count, 0), times)
    return Known(ends[None], InnerMotion(flows[None], logit[None]), lines(video)[None, 1:-1])


def bent(world: Known, sketches: jnp.ndarray) -> InnerMotion:
    """The motion with these sketches."""
    return through_sketches(world._replace(sketches=sketches), estimate, estimate, lines)


def shifts(motion: InnerMotion) -> tuple[np.ndarray, np.ndarray]:
    """How far the square of each frame between has come from the first picture, and has to go to the last."""
    middle = np.asarray(motion.flows)[0, :, SIZE // 2]
    at = [4 + place + 4 for place in PLACES[1:-1]]
    return (
        -np.asarray([row[column, 0] for row, column in zip(middle, at, strict=True)]),
        np.asarray([row[column, 2] for row, column in zip(middle, at, strict=True)]),
    )


def test_without_a_sketch_nothing_changes(world: Known) -> None:
    found = bent(world, jnp.zeros_like(world.sketches))
    np.testing.assert_array_equal(found.flows, world.straight.flows)
    np.testing.assert_array_equal(found.logit, world.straight.logit)


def test_a_sketch_moves_its_frame_and_those_beside_it(world: Known) -> None:
    """That of frame 3 says that the square is at 3, where it would evenly be at 6."""
    only = jnp.zeros_like(world.sketches).at[:, 2].set(world.sketches[:, 2])
    moved, left = shifts(bent(world, only))
    np.testing.assert_allclose(moved, [1, 2, 3, 6, 9], atol=0.15)
    np.testing.assert_allclose(left, 12 - moved, atol=0.3)


@pytest.mark.parametrize("most", [2, 3, 5, 8])
def test_flows_between_lines_are_found_for_as_many_frames_as_have_sketches(world: Known, most: int) -> None:
    """And the motion is the same, of clips with two, one and no sketches together."""
    drawn = np.zeros((3, FRAMES - 2), bool)
    drawn[0, [1, 3]] = drawn[1, 4] = True
    ends, straight, sketches = (jax.tree.map(lambda x: jnp.repeat(x, 3, axis=0), part) for part in world)
    several = Known(ends, straight, jnp.where(drawn[..., None, None, None], sketches, 0.0))
    asked: list[int] = []

    def between_lines(first: jnp.ndarray, last: jnp.ndarray, times: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        asked.append(len(times))
        return estimate(first, last, times)

    found = through_sketches(several, estimate, between_lines, lines, most)
    assert asked == [3 * min(most, FRAMES - 2)] * 2
    for one, other in zip(found, through_sketches(several, estimate, estimate, lines), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_sketches_of_all_frames_are_the_motion(world: Known) -> None:
    moved, _ = shifts(bent(world, world.sketches))
    np.testing.assert_allclose(moved, PLACES[1:-1], atol=0.15)


def test_each_frame_is_between_the_drawn_ones_beside_it() -> None:
    is_drawn = jnp.asarray([[False, False, True, False, False], [False] * 5, [True] * 5])
    before, after = _neighbours(is_drawn)
    assert before.tolist() == [[0, 0, 0, 3, 3], [0] * 5, [0, 1, 2, 3, 4]]
    assert after.tolist() == [[3, 3, 6, 6, 6], [6] * 5, [2, 3, 4, 5, 6]]
