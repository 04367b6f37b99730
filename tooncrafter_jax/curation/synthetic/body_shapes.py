"""Surfaces of the solid bodies that `bodies` renders: triangles with smooth or flat shading and places for a
texture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

_AROUND, _ALONG = 28, 16  # facets of round surfaces


@dataclasses.dataclass(frozen=True)
class Surface:
    """Triangles around the centre of mass.

    Attributes:
      points: (V, 3) corners, in metres.
      normals: (V, 3) directions in which the surface looks there.
      texture: (V, 2) place in the texture, which repeats after 1.
      triangles: (3 F) indices of corners, counter-clockwise seen from outside.
    """

    points: Float64[np.ndarray, "V 3"]
    normals: Float64[np.ndarray, "V 3"]
    texture: Float64[np.ndarray, "V 2"]
    triangles: Int64[np.ndarray, "F"]


def box(width: float, depth: float, height: float) -> Surface:
    """A box of these sides, each face with the whole texture."""
    corners = [np.array([x, y, z]) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    size = np.array([width, depth, height])
    return _flat([[corners[index] * size for index in face] for face in faces])


def pyramid(side: float, height: float) -> Surface:
    """A pyramid on a square; its centre of mass is a quarter of the height above it."""
    low, top = -height / 4, np.array([0.0, 0.0, 0.75 * height])
    base = [np.array([x * side / 2, y * side / 2, low]) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return _flat([base[::-1], *([base[i], base[(i + 1) % 4], top] for i in range(4))])


def ball(radius: float) -> Surface:
    """A sphere."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, _ALONG + 1)
    return _turned([[(radius * math.cos(a), radius * math.sin(a), math.cos(a), math.sin(a)) for a in angles]])


def ring(radius: float, thickness: float) -> Surface:
    """A ring of this mean radius; `thickness` is the radius of its cross-section."""
    angles = np.linspace(-math.pi, math.pi, _ALONG + 1)
    outline = [
        (radius + thickness * math.cos(a), thickness * math.sin(a), math.cos(a), math.sin(a)) for a in angles.tolist()
    ]
    return _turned([outline])


def cylinder(radius: float, height: float) -> Surface:
    """A cylinder that stands."""
    half = height / 2
    return _turned(
        [
            [(0.0, -half, 0.0, -1.0), (radius, -half, 0.0, -1.0)],
            [(radius, -half, 1.0, 0.0), (radius, half, 1.0, 0.0)],
            [(radius, half, 0.0, 1.0), (0.0, half, 0.0, 1.0)],
        ]
    )


def cone(radius: float, height: float) -> Surface:
    """A cone; its centre of mass is a quarter of the height above its base."""
    low, top, slope = -height / 4, 0.75 * height, math.hypot(radius, height)
    outwards, upwards = height / slope, radius / slope
    return _turned(
        [
            [(0.0, low, 0.0, -1.0), (radius, low, 0.0, -1.0)],
            [(radius, low, outwards, upwards), (0.0, top, outwards, upwards)],
        ]
    )


def pill(radius: float, height: float) -> Surface:
    """A cylinder of this height between two half balls."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, _ALONG + 2).tolist()
    outline = [
        (radius * math.cos(a), radius * math.sin(a) + math.copysign(height / 2, a), math.cos(a), math.sin(a))
        for a in angles
    ]
    return _turned([outline])


def disc(radius: float, repeats: float) -> Surface:
    """A round floor at height 0, of small triangles, on which the texture repeats so often along a diameter."""
    rings = np.linspace(0, radius, 13)
    surface = _turned([[(r, 0.0, 0.0, 1.0) for r in rings[::-1].tolist()]])
    return dataclasses.replace(surface, texture=surface.points[:, :2] * repeats / (2 * radius))


def _flat(faces: Sequence[Sequence[np.ndarray]]) -> Surface:
    """Plane faces with corners counter-clockwise seen from outside, shaded apart from each other."""
    points, normals, texture, triangles = [], [], [], []
    for face in faces:
        normal = np.cross(face[1] - face[0], face[2] - face[0])
        first = len(points)
        points += list(face)
        normals += [normal / np.linalg.norm(normal)] * len(face)
        texture += (
            [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)] if len(face) == 4 else [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)]
        )
        triangles += [first + offset for second in range(1, len(face) - 1) for offset in (0, second, second + 1)]
    return Surface(np.array(points), np.array(normals), np.array(texture), np.array(triangles, np.int64))


def _turned(outlines: Sequence[Sequence[tuple[float, float, float, float]]]) -> Surface:
    """What outlines make that turn about the vertical axis: points (distance, height) with their normals, bottom to
    top.
    """
    points, normals, texture, triangles = [], [], [], []
    for outline in outlines:
        count = len(outline)
        for step in range(_AROUND + 1):
            angle = 2 * math.pi * step / _AROUND
            along_x, along_y = math.cos(angle), math.sin(angle)
            for index, (distance, height, outwards, upwards) in enumerate(outline):
                points.append((distance * along_x, distance * along_y, height))
                normals.append((outwards * along_x, outwards * along_y, upwards))
                texture.append((2 * step / _AROUND, index / (count - 1)))
        first = len(points) - (_AROUND + 1) * count
        for step in range(_AROUND):
            for index in range(count - 1):
                here = first + step * count + index
                there = here + count
                triangles += [here, there, here + 1, here + 1, there, there + 1]
    return Surface(np.array(points), np.array(normals), np.array(texture), np.array(triangles, np.int64))


@dataclasses.dataclass(frozen=True)
class Shape:
    """A kind of body.

    Attributes:
      singular: what a caption calls one, with its article.
      plural: what it calls several.
      surface: makes it of a size of about 1 metre times the number given.
      rolls: whether it rolls well, about its upright axis when it lies.
    """

    singular: str
    plural: str
    surface: Callable[[float, np.random.Generator], Surface]
    rolls: bool = False


SHAPES = {
    "box": Shape("a box", "boxes", lambda s, rng: box(*(s * side for side in rng.uniform(0.5, 1.0, 3).tolist()))),
    "ball": Shape("a ball", "balls", lambda s, rng: ball(0.45 * s), rolls=True),
    "cylinder": Shape(
        "a cylinder", "cylinders", lambda s, rng: cylinder(rng.uniform(0.25, 0.45) * s, 0.9 * s), rolls=True
    ),
    "cone": Shape("a cone", "cones", lambda s, rng: cone(0.45 * s, rng.uniform(0.8, 1.1) * s)),
    "pyramid": Shape("a pyramid", "pyramids", lambda s, rng: pyramid(0.85 * s, rng.uniform(0.7, 1.0) * s)),
    "pill": Shape("a pill", "pills", lambda s, rng: pill(0.28 * s, rng.uniform(0.3, 0.6) * s), rolls=True),
    "ring": Shape("a ring", "rings", lambda s, rng: ring(0.36 * s, rng.uniform(0.1, 0.17) * s), rolls=True),
}
"""The bodies there are."""
