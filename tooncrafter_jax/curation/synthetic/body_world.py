"""Simulating and rendering solid bodies with pybullet, on the CPU.

Shadows on the floor are drawn here: the renderer's own darken the floor by itself. Edges are smoothed by rendering
larger.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw, ImageFilter

from tooncrafter_jax.curation.synthetic.body_shapes import Surface
from tooncrafter_jax.errors import UserError, missing_extra

FPS = 24.0
FIELD_OF_VIEW = math.radians(42)
"""Angle from the lower to the upper edge of the screen."""

_STEPS = 10  # of the simulation in a frame
_GRAVITY = 9.81
_OVERSAMPLING = 2
_NEAR, _FAR = 0.1, 80.0
_LIGHT = np.array([0.42, -0.38, 0.82])  # towards the light
_DIRECTIONS = 72  # in which a shadow's outline has a corner
_SHADE = 0.62  # of the floor's brightness, in shadow

_Texture = UInt8[np.ndarray, "_ _ 3"]


@dataclasses.dataclass(frozen=True)
class Body:
    """A body at the start.

    Attributes:
      kind: name of its shape.
      surface: its surface.
      texture: wrapped around it.
      place: of its centre, in metres; z is upwards.
      turn: quaternion x, y, z, w.
      velocity: in metres a second.
      spin: in radians a second about x, y and z.
    """

    kind: str
    surface: Surface
    texture: _Texture
    place: Sequence[float]
    turn: Sequence[float]
    velocity: Sequence[float]
    spin: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Motion:
    """Where the bodies are in each frame.

    Attributes:
      places: of the centres, in metres.
      turns: quaternions x, y, z, w.
    """

    places: Float64[np.ndarray, "T bodies 3"]
    turns: Float64[np.ndarray, "T bodies 4"]


@dataclasses.dataclass(frozen=True)
class View:
    """The camera in one frame.

    Attributes:
      eye: where it is, in metres.
      target: what it looks at.
    """

    eye: Float64[np.ndarray, "3"]
    target: Float64[np.ndarray, "3"]


def import_pybullet() -> ModuleType:
    """The module pybullet.

    Raises:
      UserError: it is not installed.
    """
    try:
        import pybullet
    except ImportError as error:
        if sys.version_info >= (3, 12):  # the extra leaves it out there: its makers publish no wheel
            raise UserError(
                "simulating bodies needs the package 'pybullet', which the extra 'data' installs for Python 3.11 only: "
                "use Python 3.11, or build it with: pip install 'pybullet>=3.2.7,<4' (it needs a C++ compiler)"
            ) from error
        raise missing_extra("pybullet", "data", "simulating bodies") from error
    return pybullet


class World:
    """A simulation of its own, ended with the `with` statement."""

    def __init__(self):
        """Starts it.

        Raises:
          UserError: pybullet is not installed.
        """
        self._bullet = import_pybullet()
        self._client: dict[str, int] = {"physicsClientId": self._bullet.connect(self._bullet.DIRECT)}
        self._bodies: list[int] = []
        self._surfaces: list[Surface] = []
        self._floor = -2

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        self._bullet.disconnect(**self._client)

    def simulate(self, bodies: Sequence[Body], frames: int, gravity: bool, bounce: float) -> Motion:
        """Puts bodies into the world and moves them.

        Args:
          bodies: at the start; a frame later is the second of the motion.
          frames: number of frames.
          gravity: whether bodies fall, on a floor at height 0.
          bounce: share of the speed, 0 to 1, with which they bounce off.
        """
        bullet, client = self._bullet, self._client
        bullet.setTimeStep(1 / (FPS * _STEPS), **client)
        ground = -1
        if gravity:
            bullet.setGravity(0, 0, -_GRAVITY, **client)
            plane = bullet.createCollisionShape(bullet.GEOM_PLANE, **client)
            ground = bullet.createMultiBody(0, plane, **client)
            bullet.changeDynamics(ground, -1, restitution=1.0, lateralFriction=0.8, **client)
        self._surfaces = [body.surface for body in bodies]
        self._bodies = [self._add(body, bounce) for body in bodies]
        places, turns = np.empty((frames, len(bodies), 3)), np.empty((frames, len(bodies), 4))
        for frame in range(frames):
            for index, body in enumerate(self._bodies):
                places[frame, index], turns[frame, index] = bullet.getBasePositionAndOrientation(body, **client)
            for _ in range(_STEPS):
                bullet.stepSimulation(**client)
        if ground >= 0:
            bullet.removeBody(ground, **client)  # it would be seen
        return Motion(places, turns)

    def lay_floor(self, surface: Surface, texture: _Texture) -> None:
        """Makes the floor visible."""
        self._floor = self._bullet.createMultiBody(0, -1, self._visual(surface), **self._client)
        self._paint(self._floor, texture)

    def render(
        self, motion: Motion, frame: int, view: View, behind: UInt8[np.ndarray, "h w 3"], height: int, width: int
    ) -> UInt8[np.ndarray, "{height} {width} 3"]:
        """The picture of one frame.

        Args:
          motion: from `simulate`.
          frame: index of the frame.
          view: the camera.
          behind: what is seen where nothing is.
          height: of the picture, in pixels.
          width: of the picture, in pixels.
        """
        bullet, client = self._bullet, self._client
        for body, place, turn in zip(self._bodies, motion.places[frame], motion.turns[frame], strict=True):
            bullet.resetBasePositionAndOrientation(body, place.tolist(), turn.tolist(), **client)
        tall, wide = height * _OVERSAMPLING, width * _OVERSAMPLING
        onto_eye = bullet.computeViewMatrix(view.eye.tolist(), view.target.tolist(), [0, 0, 1])
        onto_screen = bullet.computeProjectionMatrixFOV(math.degrees(FIELD_OF_VIEW), width / height, _NEAR, _FAR)
        _, _, colours, _, seen = bullet.getCameraImage(
            wide,
            tall,
            onto_eye,
            onto_screen,
            renderer=bullet.ER_TINY_RENDERER,
            lightDirection=_LIGHT.tolist(),
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.08,
            shadow=0,
            **client,
        )
        picture = np.array(colours, np.uint8).reshape(tall, wide, 4)[..., :3]
        seen = np.array(seen).reshape(tall, wide)
        if self._floor >= 0:
            # Column by column in memory: the product maps a point to the screen, -1 to 1 and upwards.
            matrix = np.reshape(onto_screen, (4, 4)).T @ np.reshape(onto_eye, (4, 4)).T
            shade = self._shadows(motion, frame, matrix, tall, wide)
            picture = np.where((seen == self._floor)[..., None], picture * shade[..., None], picture).astype(np.uint8)
        if (seen == -1).any():
            backdrop = Image.fromarray(behind).resize((wide, tall), Image.Resampling.BILINEAR)
            picture = np.where((seen == -1)[..., None], np.asarray(backdrop), picture)
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))

    def _add(self, body: Body, bounce: float) -> int:
        bullet, client = self._bullet, self._client
        index = bullet.createMultiBody(
            1.0, self._collision(body), self._visual(body.surface), list(body.place), list(body.turn), **client
        )
        bullet.changeDynamics(
            index, -1, restitution=bounce, lateralFriction=0.6, rollingFriction=0.002, spinningFriction=0.002, **client
        )
        bullet.resetBaseVelocity(index, list(body.velocity), list(body.spin), **client)
        self._paint(index, body.texture)
        return index

    def _collision(self, body: Body) -> int:
        """The form with which a body collides: its exact one where the simulation has it, else its convex hull."""
        bullet, client = self._bullet, self._client
        sides = body.surface.points.max(axis=0).tolist()
        radius, half = float(np.hypot(*body.surface.points[:, :2].T).max()), sides[2]
        if body.kind == "box":
            return bullet.createCollisionShape(bullet.GEOM_BOX, halfExtents=sides, **client)
        if body.kind == "ball":
            return bullet.createCollisionShape(bullet.GEOM_SPHERE, radius=radius, **client)
        if body.kind == "cylinder":
            return bullet.createCollisionShape(bullet.GEOM_CYLINDER, radius=radius, height=2 * half, **client)
        if body.kind == "pill":
            return bullet.createCollisionShape(bullet.GEOM_CAPSULE, radius=radius, height=2 * (half - radius), **client)
        return bullet.createCollisionShape(bullet.GEOM_MESH, vertices=body.surface.points.tolist(), **client)

    def _visual(self, surface: Surface) -> int:
        return self._bullet.createVisualShape(
            self._bullet.GEOM_MESH,
            vertices=surface.points.tolist(),
            indices=surface.triangles.tolist(),
            uvs=surface.texture.tolist(),
            normals=surface.normals.tolist(),
            rgbaColor=[1, 1, 1, 1],
            **self._client,
        )

    def _paint(self, body: int, texture: _Texture) -> None:
        with tempfile.TemporaryDirectory() as directory:  # the renderer reads textures from files only
            path = Path(directory) / f"texture-{body}.png"
            Image.fromarray(texture).save(path)
            loaded = self._bullet.loadTexture(str(path), **self._client)
        self._bullet.changeVisualShape(body, -1, textureUniqueId=loaded, **self._client)

    def _shadows(
        self, motion: Motion, frame: int, matrix: Float64[np.ndarray, "4 4"], tall: int, wide: int
    ) -> Float64[np.ndarray, "{tall} {wide}"]:
        """Brightness of a floor under the bodies' shadows, as a share."""
        mask = Image.new("L", (wide, tall))
        draw = ImageDraw.Draw(mask)
        for surface, place, turn in zip(self._surfaces, motion.places[frame], motion.turns[frame], strict=True):
            turned = np.reshape(self._bullet.getMatrixFromQuaternion(turn.tolist()), (3, 3))
            points = surface.points @ turned.T + place
            points = points - _LIGHT * (points[:, 2:] / _LIGHT[2])
            mapped = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
            if (mapped[:, 3] <= _NEAR).any():  # behind the camera
                continue
            screen = mapped[:, :2] / mapped[:, 3:]
            outline = _outline((screen * [0.5, -0.5] + 0.5) * [wide, tall])
            draw.polygon([(x, y) for x, y in outline.tolist()], fill=255)
        soft = mask.filter(ImageFilter.BoxBlur(max(1, tall // 170)))
        return 1 - (1 - _SHADE) * np.asarray(soft).astype(np.float64) / 255


def _outline(points: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, "_ 2"]:
    """Corners of the convex hull, in turn: the farthest points in many directions."""
    angles = np.linspace(0, 2 * math.pi, _DIRECTIONS, endpoint=False)
    return points[np.argmax(points @ np.stack([np.cos(angles), np.sin(angles)]), axis=0)]
