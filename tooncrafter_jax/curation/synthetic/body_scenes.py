"""What happens in a scene of solid bodies: which there are, how they start, and how the camera moves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from tooncrafter_jax.curation.synthetic.backgrounds import paint_background
from tooncrafter_jax.curation.synthetic.body_shapes import SHAPES, disc
from tooncrafter_jax.curation.synthetic.body_world import FIELD_OF_VIEW, Body, Motion, View, World
from tooncrafter_jax.typing import Uint8Video

AT_REST = 0.25
"""Share of the scenes with a camera at rest, where the bodies move to the end."""

_TEXTURES = ("stripes", "dots", "checker", "rays")
_BACKDROPS = ("gradient", "meadow", "autumn", "snow", "desert", "city", "night", "rays", "stripes", "dots")
_BACKDROP_HORIZON = 0.62  # of the height of a drawn background
_BACKDROP_HEIGHT, _BACKDROP_WIDTH = 2.0, 3.2  # in screens
_MANY = ("", "one", "two", "three", "four")
_STILL = 0.25  # metres of way (or half radians) in the last frames, below which a scene counts as come to rest
_LAST = 16
_HALF_BODY = 0.55  # metres, from the centre of the largest body to its farthest point
_NEAREST = 2.4  # metres, of the camera

Vector = Float64[np.ndarray, "3"]


def make_scene(rng: np.random.Generator, world: World, frames: int, height: int, width: int) -> tuple[Uint8Video, str]:
    """Simulates and renders a scene.

    Args:
      rng: chooses everything.
      world: an empty one.
      frames: number of frames.
      height: of the pictures, in pixels.
      width: of the pictures, in pixels.

    Returns:
      The frames (frames, height, width, 3) and a caption, e.g. "two tumbling boxes, moving camera".
    """
    action = str(rng.choice(list(_ACTIONS)))
    kinds = _choose_kinds(rng, rolling=action == "rolling", least=2 if action == "colliding" else 1)
    bodies = _ACTIONS[action](rng, kinds)
    falls = action != "floating"
    motion = world.simulate(bodies, frames, falls, float(rng.uniform(0.4, 0.75)))
    at_rest = bool(rng.random() < AT_REST) and moves_to_the_end(motion)
    views = plan_views(
        rng, motion, at_rest, (math.radians(6), math.radians(24)) if falls else (-0.2, 0.4), width / height
    )
    if falls:
        radius = float(np.linalg.norm(views[0].eye - views[0].target)) + 3
        world.lay_floor(disc(radius, 2 * radius / 2.5), paint_background(str(rng.choice(_TEXTURES)), rng, 256, 256))
    backdrop = paint_background(
        str(rng.choice(_BACKDROPS)), rng, round(height * _BACKDROP_HEIGHT), round(width * _BACKDROP_WIDTH)
    )
    pictures = np.stack(
        [
            world.render(motion, index, view, _seen_behind(backdrop, view, views, height, width), height, width)
            for index, view in enumerate(views)
        ]
    )
    return pictures, f"{describe(action, kinds)}, {'camera at rest' if at_rest else 'moving camera'}"


def describe(action: str, kinds: Sequence[str]) -> str:
    """Bodies in words, e.g. "two tumbling boxes and a cone"."""
    parts = []
    for kind, count in Counter(kinds).items():
        words = SHAPES[kind].singular.split() if count == 1 else [_MANY[count], SHAPES[kind].plural]
        parts.append(" ".join([words[0], words[1]] if parts else [words[0], action, words[1]]))
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def moves_to_the_end(motion: Motion) -> bool:
    """Whether some body still goes or turns a good way in the last 16 frames."""
    way = np.linalg.norm(np.diff(motion.places[-_LAST:], axis=0), axis=-1).sum(axis=0)
    turns = motion.turns[-_LAST:]
    cosines = np.abs((turns[1:] * turns[:-1]).sum(axis=-1)).clip(0, 1)
    turned = (2 * np.arccos(cosines)).sum(axis=0)
    return bool((way > _STILL).any() or (turned / 2 > _STILL).any())


def plan_views(
    rng: np.random.Generator, motion: Motion, at_rest: bool, elevations: tuple[float, float], aspect: float
) -> list[View]:
    """A camera that sees all bodies throughout: at rest, or moving around them and nearer or farther.

    Args:
      rng: chooses.
      motion: of the bodies.
      at_rest: whether it stands still.
      elevations: lowest and highest angle above the floor, in radians.
      aspect: width of the screen by its height.
    """
    places = motion.places.reshape(-1, 3)
    target = (places.min(axis=0) + places.max(axis=0)) / 2
    share = np.linspace(0, 1, len(motion.places))
    curve = share if rng.random() < 0.6 else share * share * (3 - 2 * share)
    start, low = rng.uniform(0, 2 * math.pi), rng.uniform(*elevations)
    turn = float(rng.choice([-1.0, 1.0])) * rng.uniform(math.radians(12), math.radians(45))
    rise, farther = rng.uniform(0, math.radians(10)), rng.uniform(1.0, 1.3)
    if at_rest:
        turn, rise, farther = 0.0, 0.0, 1.0
    if rng.random() < 0.5:
        curve = 1 - curve
    azimuths, heights = start + turn * curve, low + rise * curve
    outwards = np.stack(
        [np.cos(heights) * np.cos(azimuths), np.cos(heights) * np.sin(azimuths), np.sin(heights)], axis=1
    )
    eyes = target + outwards * (_distance(motion, target, outwards, aspect) * farther**curve)[:, None]
    return [View(eye, target) for eye in eyes]


def _distance(motion: Motion, target: Vector, outwards: Float64[np.ndarray, "T 3"], aspect: float) -> float:
    """How far from the target in each frame's direction a camera sees all bodies in all frames."""
    right = np.stack([-outwards[:, 1], outwards[:, 0], np.zeros(len(outwards))], axis=1)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    up = np.cross(outwards, right)
    places = motion.places - target
    aside, above, towards = (np.einsum("tbc,tc->tb", places, axis) for axis in (right, up, outwards))
    slope = math.tan(FIELD_OF_VIEW / 2)
    fits = [(np.abs(aside) + _HALF_BODY) / (slope * aspect), (np.abs(above) + _HALF_BODY) / slope]
    return max(_NEAREST, float((towards + np.maximum(*fits)).max()))


def _seen_behind(
    backdrop: UInt8[np.ndarray, "_ _ 3"], view: View, views: Sequence[View], height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """The part of a far backdrop that is seen in a direction; the middle of the way looks at its middle."""
    middle = _direction(views[len(views) // 2])
    azimuth, elevation = _direction(view)
    screens = height / (2 * math.tan(FIELD_OF_VIEW / 2))  # pixels for one radian, near the middle
    aside = -((azimuth - middle[0] + math.pi) % (2 * math.pi) - math.pi) * screens
    left = (backdrop.shape[1] - width) / 2 + aside
    top = backdrop.shape[0] * _BACKDROP_HORIZON - height / 2 + math.tan(-elevation) * screens
    left, top = min(max(0.0, left), backdrop.shape[1] - width), min(max(0.0, top), backdrop.shape[0] - height)
    box = (left, top, left + width, top + height)
    return np.asarray(Image.fromarray(backdrop).resize((width, height), Image.Resampling.BILINEAR, box=box))


def _direction(view: View) -> tuple[float, float]:
    """Azimuth and elevation, in radians, in which the camera looks."""
    x, y, z = (view.target - view.eye).tolist()
    return math.atan2(y, x), math.atan2(z, math.hypot(x, y))


def _choose_kinds(rng: np.random.Generator, rolling: bool, least: int) -> list[str]:
    kinds = [kind for kind, shape in SHAPES.items() if shape.rolls or not rolling]
    count = int(rng.integers(least, 5))
    if rng.random() < 0.4:
        return [str(rng.choice(kinds))] * count
    return sorted((str(kind) for kind in rng.choice(kinds, count)), key=kinds.index)


def _body(
    rng: np.random.Generator,
    kind: str,
    place: Sequence[float],
    velocity: Sequence[float],
    spin: float,
    size: float = 0.0,
) -> Body:
    """A body with a random turn and a spin of about that many radians a second."""
    surface = SHAPES[kind].surface(size or float(rng.uniform(0.6, 0.95)), rng)
    turn = rng.normal(size=4)
    turn /= np.linalg.norm(turn)
    return Body(
        kind, surface, _texture(rng), list(place), turn.tolist(), list(velocity), (spin * rng.normal(size=3)).tolist()
    )


def _texture(rng: np.random.Generator) -> UInt8[np.ndarray, "_ _ 3"]:
    return paint_background(str(rng.choice(_TEXTURES)), rng, 128, 128)


def _around(rng: np.random.Generator, index: int, count: int, radius: float, start: float) -> tuple[float, float]:
    """A place on a circle, apart from the others."""
    angle = start + 2 * math.pi * index / count + rng.uniform(-0.3, 0.3)
    return radius * math.cos(angle), radius * math.sin(angle)


def _tumbling(rng: np.random.Generator, kinds: Sequence[str]) -> list[Body]:
    """Thrown towards the middle."""
    start, bodies = rng.uniform(0, 2 * math.pi), []
    for index, kind in enumerate(kinds):
        x, y = _around(rng, index, len(kinds), rng.uniform(1.0, 1.5), start)
        pace = rng.uniform(0.6, 1.3)
        velocity = -x * pace, -y * pace, rng.uniform(1.5, 3.5)
        bodies.append(_body(rng, kind, (x, y, rng.uniform(0.8, 1.5)), velocity, 4.0))
    return bodies


def _falling(rng: np.random.Generator, kinds: Sequence[str]) -> list[Body]:
    """Dropped from above, one after the other."""
    bodies = []
    for index, kind in enumerate(kinds):
        x, y, z = *rng.uniform(-0.8, 0.8, 2).tolist(), 1.4 + 0.95 * index + rng.uniform(0, 0.2)
        bodies.append(_body(rng, kind, (x, y, z), (*rng.normal(scale=0.4, size=2).tolist(), 0.0), 2.5))
    return bodies


def rolling_bodies(rng: np.random.Generator, kinds: Sequence[str]) -> list[Body]:
    """Rolling on the floor past the middle, from different sides."""
    start, bodies = rng.uniform(0, 2 * math.pi), []
    for index, kind in enumerate(kinds):
        x, y = _around(rng, index, len(kinds), rng.uniform(1.3, 1.9), start)
        size = float(rng.uniform(0.6, 0.95))
        body = _body(rng, kind, (x, y, 0.0), (0.0, 0.0, 0.0), 0.0, size)
        radius = float(np.hypot(*body.surface.points[:, :2].T).max())
        heading = math.atan2(-y, -x) + rng.uniform(-0.35, 0.35)
        pace = rng.uniform(1.4, 2.6)
        along = math.cos(heading), math.sin(heading)
        # Its upright axis is laid down across the way: a quarter turn about the direction it goes.
        turn = along[0] * math.sqrt(0.5), along[1] * math.sqrt(0.5), 0.0, math.sqrt(0.5)
        spin = -along[1] * pace / radius, along[0] * pace / radius, 0.0
        velocity = along[0] * pace, along[1] * pace, 0.0
        bodies.append(Body(kind, body.surface, body.texture, (x, y, radius + 0.003), turn, velocity, spin))
    return bodies


def _colliding(rng: np.random.Generator, kinds: Sequence[str]) -> list[Body]:
    """Two sides that fly at each other."""
    heading, bodies = rng.uniform(0, 2 * math.pi), []
    for index, kind in enumerate(kinds):
        side = 1 if index % 2 else -1
        aside, up = rng.uniform(-0.15, 0.15), 0.7 + 0.9 * (index // 2)
        way = side * rng.uniform(1.3, 1.6)
        x = way * math.cos(heading) - aside * math.sin(heading)
        y = way * math.sin(heading) + aside * math.cos(heading)
        pace = rng.uniform(1.3, 2.0)
        velocity = -pace * way * math.cos(heading), -pace * way * math.sin(heading), rng.uniform(1.8, 2.8)
        bodies.append(_body(rng, kind, (x, y, up), velocity, 2.5))
    return bodies


def _floating(rng: np.random.Generator, kinds: Sequence[str]) -> list[Body]:
    """Drifting and turning without weight."""
    start, bodies = rng.uniform(0, 2 * math.pi), []
    for index, kind in enumerate(kinds):
        x, y = _around(rng, index, len(kinds), rng.uniform(0.8, 1.3), start)
        z = rng.uniform(-0.5, 0.5)
        pace = rng.uniform(0.15, 0.5)
        velocity = [-pace * value + 0.1 * rng.normal() for value in (x, y, z)]
        bodies.append(_body(rng, kind, (x, y, z), velocity, 1.6))
    return bodies


_ACTIONS: dict[str, Callable[[np.random.Generator, Sequence[str]], list[Body]]] = {
    "tumbling": _tumbling,
    "falling": _falling,
    "rolling": rolling_bodies,
    "colliding": _colliding,
    "floating": _floating,
}
"""What bodies do, as a caption says it, and how they start."""
