"""What happens in a composed clip: who stands where, what moves along, and how the camera moves.

Everything is chosen by the random numbers given, and so that the subjects stay whole on the screen. Places on the
screen are shares of its width and height; the world is the background, in the same units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, UInt8

from tooncrafter_jax.curation.synthetic.animated_pictures import Animation
from tooncrafter_jax.curation.synthetic.composition import Layer, compose
from tooncrafter_jax.typing import Uint8Video

WORLD_HEIGHT, WORLD_WIDTH = 1.3, 1.7
"""Size of the world: how far a camera can move."""
WORLD_DETAIL = 1.2
"""Pixels of the background for one of the screen, so that it stays sharp when the camera comes nearer."""
LARGEST_ZOOM = 1.25

_EDGE = 0.03  # that stays free at the sides of the screen
_GAP = 0.06  # between two actors
_BELOW = 0.02  # of its height, that a bust reaches below the screen's lower edge
_WIDEST_MOVING = (0.64, 0.78)  # of one actor, or two together, that move across the screen
_LOW = 0.65  # of the way down, from where on the ground of drawn worlds is under the feet
_STANDING = {"still": 0.15, "pan": 0.45, "zoom": 0.4}
_TRAVELLING = {"follow": 0.45, "cross": 0.25, "pan": 0.1, "zoom": 0.2}

Track = Float64[np.ndarray, "T"]


@dataclasses.dataclass(frozen=True)
class Actor:
    """An animated drawing that is to appear.

    Attributes:
      animation: the drawing.
      travels: whether it runs, walks or drives: to the left, unless it is mirrored.
      cut_side: the side, "left" or "right", at which the drawing itself is cut off straight, or "".
    """

    animation: Animation
    travels: bool = False
    cut_side: str = ""


@dataclasses.dataclass(frozen=True)
class Prop:
    """A still picture that moves along.

    Attributes:
      picture: (h, w, 4), colour multiplied by opacity.
      motion: "roll", "hop" or "float".
    """

    picture: UInt8[np.ndarray, "h w 4"]
    motion: str


@dataclasses.dataclass(frozen=True)
class Shot:
    """How the camera and the actors move, frame by frame.

    Attributes:
      camera: what a caption says of it, or "".
      x: the actors' middle on the screen.
      zoom: size of everything relative to its smallest.
      world_x: the screen's centre in the world.
      world_y: the same, downwards.
      mirrored: whether the actors look to the right.
      follows: whether the camera goes along with the actors.
    """

    camera: str
    x: Track
    zoom: Track
    world_x: Track
    world_y: Track
    mirrored: bool
    follows: bool = False


@dataclasses.dataclass(frozen=True)
class Cast:
    """The actors with their sizes at zoom 1, in pixels.

    Attributes:
      actors: one, or two from left to right.
      boxes: left, top, right and bottom of what is visible of each, in its own pixels.
      scales: pixels of the screen for one of each.
      width: of all together with the gap.
      feet: row of the screen on which they stand.
    """

    actors: Sequence[Actor]
    boxes: Sequence[tuple[int, int, int, int]]
    scales: Sequence[float]
    width: float
    feet: float

    @classmethod
    def of(
        cls, actors: Sequence[Actor], size: float, widest: float, feet: float, zoom: float, height: int, width: int
    ) -> Cast:
        """Sizes the actors to a share of the screen's height, or smaller where they would not stay whole.

        Args:
          actors: one or two.
          size: wished height, as a share of the screen's, at zoom 1.
          widest: largest width of all together, as a share of the screen's, at the largest zoom.
          feet: where they stand, as a share of the screen's height; lower where they need it.
          zoom: the largest.
          height: of the screen, in pixels.
          width: of the screen, in pixels.
        """
        boxes = [actor.animation.box() for actor in actors]
        gap = _GAP * width * (len(actors) - 1)
        room = (widest * width / zoom - gap) / len(actors)
        tallest = min(size, (1 - 2 * _EDGE) / zoom) * height
        scales = [min(tallest / (bottom - top), room / (right - left)) for left, top, right, bottom in boxes]
        together = gap + sum(scale * (box[2] - box[0]) for scale, box in zip(scales, boxes, strict=True))
        tallest = zoom * max(scale * (box[3] - box[1]) for scale, box in zip(scales, boxes, strict=True))
        return cls(actors, boxes, scales, together, max(feet * height, tallest + _EDGE * height))

    def layers(self, shot: Shot, height: int, width: int) -> list[Layer]:
        """Where each actor is drawn."""
        gap = _GAP * width
        left = shot.x * width - shot.zoom * self.width / 2
        layers = []
        for index, (actor, box, scale) in enumerate(zip(self.actors, self.boxes, self.scales, strict=True)):
            grown = scale * shot.zoom
            wide, tall = grown * (box[2] - box[0]), grown * (box[3] - box[1])
            facing_each_other = len(self.actors) == 2 and not actor.travels
            mirrored = index == 0 if facing_each_other else shot.mirrored
            foot = height + _BELOW * tall if actor.animation.has_flat_bottom() else np.full_like(tall, self.feet)
            layers.append(_placed(actor.animation.frames, box, left + wide / 2, foot - tall / 2, grown, mirrored))
            left = left + wide + gap * shot.zoom
        return layers


def plain_scene(
    rng: np.random.Generator, actor: Actor, background: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> Uint8Video:
    """The actor alone before a background, with the camera at rest."""
    cast = Cast.of([actor], rng.uniform(0.66, 0.92), 1 - 2 * _EDGE, rng.uniform(0.9, 0.96), 1.0, height, width)
    still = np.zeros(len(actor.animation.frames))
    mirrored = bool(rng.random() < 0.5)
    x = _free_place(rng, cast.width / width, mirrored, actor.cut_side)
    shot = Shot("", still + x, still + 1, still + WORLD_WIDTH / 2, still + WORLD_HEIGHT / 2, mirrored)
    return compose(background, camera_windows(shot, background), cast.layers(shot, height, width), height, width)


def composed_scene(
    rng: np.random.Generator,
    actors: Sequence[Actor],
    prop: Prop | None,
    background: UInt8[np.ndarray, "h w 3"],
    height: int,
    width: int,
) -> tuple[Uint8Video, str]:
    """One or two actors, and a thing, before a background that the camera moves across.

    Args:
      rng: chooses.
      actors: one, or two of equal length.
      prop: a thing that moves along, if any.
      background: the world, of `WORLD_HEIGHT` by `WORLD_WIDTH` screens.
      height: of the screen, in pixels.
      width: of the screen, in pixels.

    Returns:
      The frames, and what a caption says of the camera.
    """
    size = rng.uniform(0.45, 0.62) if len(actors) > 1 or prop is not None else rng.uniform(0.5, 0.75)
    weights = _TRAVELLING if all(actor.travels for actor in actors) else _STANDING
    kind = str(rng.choice(list(weights), p=list(weights.values())))
    kind = "still" if actors[0].cut_side else kind
    zoom = rng.uniform(1.12, LARGEST_ZOOM) if kind == "zoom" else 1.0
    widest = _WIDEST_MOVING[len(actors) - 1] if kind in ("pan", "cross") else 1 - 2 * _EDGE
    cast = Cast.of(actors, size, widest, rng.uniform(0.88, 0.95), zoom, height, width)
    shot = plan_shot(rng, cast, kind, zoom, height, width)
    layers = cast.layers(shot, height, width)
    if prop is not None:
        layers.append(prop_layer(rng, prop, shot, cast.width * float(shot.zoom.max()) / width, height, width))
    return compose(background, camera_windows(shot, background), layers, height, width), shot.camera


def plan_shot(rng: np.random.Generator, cast: Cast, kind: str, largest_zoom: float, height: int, width: int) -> Shot:
    """How the camera and the actors move.

    Args:
      rng: chooses what `kind` leaves open.
      cast: the actors.
      kind: "still"; "pan" or "zoom", where the actors stay where they are in the world; "follow", where the camera goes
        along with them; or "cross", where they cross the screen before a camera at rest.
      largest_zoom: for "zoom".
      height: of the screen, in pixels.
      width: of the screen, in pixels.
    """
    first = cast.actors[0]
    length = len(first.animation.frames)
    share = np.linspace(0, 1, length)
    curve = share if rng.random() < 0.6 else share * share * (3 - 2 * share)
    mirrored = bool(rng.random() < 0.5)
    ahead = 1.0 if mirrored else -1.0

    zoom, camera = np.ones(length), ""
    if kind == "zoom":
        closer = rng.random() < 0.5
        zoom = 1 + (largest_zoom - 1) * (curve if closer else 1 - curve)
        camera = f"camera zooming {'in' if closer else 'out'}"
    group = cast.width * float(zoom.max()) / width
    x = np.full(length, _free_place(rng, group, mirrored, first.cut_side))
    room = 1 - 2 * _EDGE - group
    if kind == "pan":
        way = -ahead * rng.uniform(0.6, 1.0) * room
        x = 0.5 + way * (curve - 0.5)
        camera = f"camera panning {'right' if way < 0 else 'left'}"
    elif kind == "cross":
        x = 0.5 + ahead * rng.uniform(0.7, 1.0) * room * (share - 0.5)

    if kind == "follow":
        path = ahead * rng.uniform(0.3, WORLD_WIDTH - 1.05) * share
        camera = f"camera moving along to the {'right' if mirrored else 'left'}"
    elif kind == "cross":
        path = np.zeros(length)
    else:  # what stands in the world stays at its place in it
        path = (0.5 - x) / zoom
    down = (0.5 - min(1.0, cast.feet / height)) / zoom
    world_x, world_y = _within(rng, path, zoom, WORLD_WIDTH, 0.0), _within(rng, down, zoom, WORLD_HEIGHT, _LOW)
    return Shot(camera, x, zoom, world_x, world_y, mirrored, kind == "follow")


def _free_place(rng: np.random.Generator, group: float, mirrored: bool, cut_side: str) -> float:
    """A place for the middle of actors so wide."""
    if cut_side:
        at_right = (cut_side == "right") != mirrored
        return 1 - group / 2 + 0.01 if at_right else group / 2 - 0.01
    return rng.uniform(_EDGE + group / 2, max(_EDGE + group / 2, 1 - _EDGE - group / 2))


def _within(rng: np.random.Generator, path: Track, zoom: Track, world: float, least: float) -> Track:
    """Puts a path of the screen's centre where the screen stays inside the world, beyond a share of what is
    possible.
    """
    lowest = float((0.5 / zoom - path).max())
    highest = float((world - 0.5 / zoom - path).min())
    return path + lowest + rng.uniform(least, 1.0) * max(0.0, highest - lowest)


def camera_windows(shot: Shot, background: UInt8[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "T 4"]:
    """What part of the background the screen shows."""
    bottom, right = background.shape[:2]
    columns, rows = right / WORLD_WIDTH, bottom / WORLD_HEIGHT
    left, upper = (shot.world_x - 0.5 / shot.zoom) * columns, (shot.world_y - 0.5 / shot.zoom) * rows
    views = np.stack([left, upper, left + columns / shot.zoom, upper + rows / shot.zoom], axis=1)
    return np.clip(views, 0, [right, bottom, right, bottom])


def _placed(
    frames: UInt8[np.ndarray, "_ h w 4"],
    box: tuple[int, int, int, int],
    x: Track,
    y: Track,
    scale: Track,
    mirrored: bool,
    degrees: Track | None = None,
) -> Layer:
    """A layer whose visible box, not whose whole picture, has its centre at x and y in pixels."""
    left, top, right, bottom = box
    aside = frames.shape[2] / 2 - (left + right) / 2
    down = frames.shape[1] / 2 - (top + bottom) / 2
    return Layer(frames, x + scale * (-aside if mirrored else aside), y + scale * down, scale, degrees, mirrored)


def prop_layer(rng: np.random.Generator, prop: Prop, shot: Shot, group: float, height: int, width: int) -> Layer:
    """A thing that rolls, hops or floats about, and goes along where the camera follows the actors.

    `group` is how much of the screen's width the actors take.
    """
    share = np.linspace(0, 1, len(shot.x))
    box = Animation(prop.picture[None], 1.0, 1).box()
    scale = rng.uniform(0.18, 0.26) * height / (box[3] - box[1])
    radius = scale * (box[3] - box[1]) / 2
    # x and y are where it would be if the camera did not move: beside the actors, where there is more room.
    side = 1.0 if float(shot.x.mean()) < 0.5 else -1.0
    inner = float(shot.x[0]) + side * group / 2
    start = (inner + (1.0 if side > 0 else 0.0)) / 2 + rng.uniform(-0.04, 0.04)
    way = -side * rng.uniform(0.08, 0.2)
    lift, degrees = np.zeros(len(share)), None
    if prop.motion == "roll":
        way = -side * rng.uniform(0.5, 0.8)  # past the feet of the actors
        degrees = -np.degrees(way * width * share / radius)
    elif prop.motion == "hop":
        lift = rng.uniform(0.12, 0.25) * np.abs(np.sin(math.pi * int(rng.integers(3, 6)) * share))
    else:
        lift = rng.uniform(0.45, 0.65) + 0.05 * np.sin(2 * math.pi * rng.uniform(1, 2) * share)
        degrees = 8 * np.sin(2 * math.pi * rng.uniform(0.8, 1.6) * share)
    x = start + way * share
    y = rng.uniform(0.93, 0.97) - lift - radius / height
    drift_x = 0.0 if shot.follows else shot.world_x - shot.world_x[0]
    drift_y = shot.world_y - shot.world_y[0]
    screen_x = (0.5 + (x - 0.5 - drift_x) * shot.zoom) * width
    screen_y = (0.5 + (y - 0.5 - drift_y) * shot.zoom) * height
    return _placed(prop.picture[None], box, screen_x, screen_y, scale * shot.zoom, False, degrees)
