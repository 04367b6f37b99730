"""Scenes: subjects stay whole on the screen, and stay at their place in the world while a camera moves."""

import numpy as np
import pytest

from tooncrafter_jax.curation.synthetic import scenes
from tooncrafter_jax.curation.synthetic.animated_pictures import Animation
from tooncrafter_jax.curation.synthetic.scenes import (
    WORLD_HEIGHT,
    WORLD_WIDTH,
    Actor,
    Cast,
    Prop,
    composed_scene,
    plain_scene,
)

HEIGHT, WIDTH = 60, 80
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _animation(colour=RED, box=(6, 4, 22, 30), side=32, length=6, flat=False):
    frames = np.zeros((length, side, side, 4), np.uint8)
    left, top, right, bottom = box
    frames[:, top:bottom, left:right] = (*colour, 255)
    if not flat:  # ends below in a foot
        frames[:, bottom - 4 : bottom, left + 2 : right - 2] = 0
    return Animation(frames, 24.0, length)


def _world(value=128):
    return np.full((round(HEIGHT * WORLD_HEIGHT), round(WIDTH * WORLD_WIDTH), 3), value, np.uint8)


def _shot(kind, seed, actors, zoom=1.2, widest=0.6):
    rng = np.random.default_rng(seed)
    cast = Cast.of(actors, 0.6, widest, 0.9, zoom if kind == "zoom" else 1.0, HEIGHT, WIDTH)
    return cast, scenes.plan_shot(rng, cast, kind, zoom, HEIGHT, WIDTH)


def _visible(layer, time):
    """Left, top, right and bottom of the red box of `_animation` on the screen."""
    left, top, right, bottom = Animation(layer.frames, 1.0, 1).box()
    if layer.mirrored:
        left, right = layer.frames.shape[2] - right, layer.frames.shape[2] - left
    half_w, half_h, scale = layer.frames.shape[2] / 2, layer.frames.shape[1] / 2, layer.scale[time]
    x, y = layer.x[time], layer.y[time]
    return (
        x + scale * (left - half_w),
        y + scale * (top - half_h),
        x + scale * (right - half_w),
        y + scale * (bottom - half_h),
    )


@pytest.mark.parametrize("kind", ["still", "pan", "zoom", "follow", "cross"])
@pytest.mark.parametrize("count", [1, 2])
def test_actors_stay_whole_and_the_view_inside_the_world(kind, count):
    for seed in range(20):
        cast, shot = _shot(kind, seed, [Actor(_animation(), travels=kind in ("follow", "cross"))] * count)
        layers = cast.layers(shot, HEIGHT, WIDTH)
        for time in range(6):
            boxes = [_visible(layer, time) for layer in layers]
            assert all(b[0] >= 0 and b[1] >= 0 and b[2] <= WIDTH and b[3] <= HEIGHT for b in boxes), (seed, boxes)
            assert count == 1 or boxes[0][2] < boxes[1][0]
        views = scenes.camera_windows(shot, _world())
        bottom, right = _world().shape[:2]
        assert views.min() >= 0 and views[:, 2].max() <= right + 1e-9 and views[:, 3].max() <= bottom + 1e-9
        np.testing.assert_allclose((views[:, 2] - views[:, 0]) * shot.zoom, WIDTH, rtol=0.01)


@pytest.mark.parametrize(("kind", "moves"), [("still", False), ("pan", True), ("zoom", True)])
def test_an_actor_keeps_its_place_in_the_world(kind, moves):
    """The world's point under its feet is the same in every frame, though the view changes."""
    for seed in range(10):
        cast, shot = _shot(kind, seed, [Actor(_animation())])
        (layer,) = cast.layers(shot, HEIGHT, WIDTH)
        boxes = np.array([_visible(layer, time) for time in range(6)])
        feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2 / WIDTH, boxes[:, 3] / HEIGHT])
        world = np.stack([shot.world_x, shot.world_y]) + (feet - 0.5) / shot.zoom
        np.testing.assert_allclose(world, np.broadcast_to(world[:, :1], world.shape), atol=1e-6)
        change = max(np.ptp(shot.world_x), np.ptp(shot.zoom))
        assert change > 0.1 if moves else change == 0


def test_the_camera_is_reported_truly():
    for seed in range(10):
        _, pan = _shot("pan", seed, [Actor(_animation())])
        assert ("right" in pan.camera) == (pan.world_x[-1] > pan.world_x[0])
        _, zoom = _shot("zoom", seed, [Actor(_animation())])
        assert ("zooming in" in zoom.camera) == (zoom.zoom[-1] > zoom.zoom[0])
        _, follow = _shot("follow", seed, [Actor(_animation(), travels=True)])
        assert ("right" in follow.camera) == (follow.world_x[-1] > follow.world_x[0]) == follow.mirrored


def test_travelling_actors_move_the_way_they_look():
    for seed in range(10):
        _, cross = _shot("cross", seed, [Actor(_animation(), travels=True)])
        assert (cross.x[-1] > cross.x[0]) == cross.mirrored and np.ptp(cross.world_x) == 0


def test_a_bust_reaches_the_lower_edge_and_a_cut_side_its_edge():
    for seed in range(6):
        frames = plain_scene(np.random.default_rng(seed), Actor(_animation(flat=True)), _world(), HEIGHT, WIDTH)
        assert (frames[:, -1] == RED).all(axis=-1).any(axis=1).all()
        actor = Actor(_animation(), cut_side="right")
        frames = plain_scene(np.random.default_rng(seed), actor, _world(), HEIGHT, WIDTH)
        at_edges = [(frames[:, :, column] == RED).all(axis=-1).any(axis=1).all() for column in (0, -1)]
        assert sorted(at_edges) == [False, True]


def test_composed_scenes_show_everyone_and_depend_on_the_seed_alone():
    cast = [Actor(_animation(RED)), Actor(_animation(GREEN))]
    prop = Prop(_animation(BLUE, box=(8, 8, 24, 24), flat=True).frames[0], "hop")
    frames, _ = composed_scene(np.random.default_rng(3), cast, prop, _world(), HEIGHT, WIDTH)
    again, _ = composed_scene(np.random.default_rng(3), cast, prop, _world(), HEIGHT, WIDTH)
    other, _ = composed_scene(np.random.default_rng(4), cast, prop, _world(), HEIGHT, WIDTH)
    np.testing.assert_array_equal(frames, again)
    assert frames.shape == (6, HEIGHT, WIDTH, 3) and (frames != other).any()
    for colour in (RED, GREEN, BLUE):
        assert (np.abs(frames.astype(int) - colour).max(axis=-1) < 30).any(axis=(1, 2)).all()


@pytest.mark.parametrize("motion", ["roll", "hop", "float"])
def test_things_move_while_the_camera_rests(motion):
    actor = Actor(_animation())
    cast, shot = _shot("still", 1, [actor])
    picture = _animation(BLUE, box=(8, 8, 24, 24), flat=True).frames[0]
    layer = scenes.prop_layer(np.random.default_rng(0), Prop(picture, motion), shot, cast.width / WIDTH, HEIGHT, WIDTH)
    assert max(np.ptp(layer.x), np.ptp(layer.y)) > 4
    if motion == "roll":  # without slipping: the way is the angle times the radius
        assert layer.degrees is not None
        turned = np.radians(layer.degrees[-1] - layer.degrees[0])
        radius = 8 * layer.scale[0]
        assert -turned * radius == pytest.approx(layer.x[-1] - layer.x[0], rel=1e-6)
