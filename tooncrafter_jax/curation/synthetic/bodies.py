"""General motion for a base model: solid bodies that tumble, fall, roll and collide before a moving camera.

Simulated and rendered on the CPU by pybullet (zlib licence), with textures drawn by this package: nothing is fetched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator

import numpy as np

from tooncrafter_jax.curation.synthetic.body_scenes import make_scene
from tooncrafter_jax.curation.synthetic.body_world import FPS, World, import_pybullet
from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import JsonObject

SHORTEST_CLIP = 16
"""Frames of a training clip (spec section 8.1)."""
SMALLEST_SIDE, LARGEST_SIDE = 32, 1024

_FORM = 1  # raised whenever the same settings make other clips


@dataclasses.dataclass(frozen=True)
class Bodies:
    """Makes clips of simulated bodies: the `Production` "bodies". Each source is one scene with one clip.

    The same settings make the same bytes on one machine, in whatever order and process scenes are made.

    Attributes:
      count: number of scenes.
      height: of the clips, in pixels.
      width: of the clips, in pixels.
      frames: of a clip, at 24 frames a second.
      seed: another seed makes other scenes.
    """

    count: int = 1000
    height: int = 256
    width: int = 256
    frames: int = 32
    seed: int = 0
    name: str = dataclasses.field(default="bodies", init=False)

    def __post_init__(self):
        for side, pixels in (("height", self.height), ("width", self.width)):
            if not SMALLEST_SIDE <= pixels <= LARGEST_SIDE:
                raise UserError(
                    f"the {side} is {pixels}, but clips have {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side"
                )
        if not SHORTEST_CLIP <= self.frames <= 1000:
            raise UserError(f"frames is {self.frames}, but a clip has {SHORTEST_CLIP} to 1000")
        if not 1 <= self.count <= 1_000_000:
            raise UserError(f"count is {self.count}, but 1 to 1,000,000 scenes can be made")

    def sources(self) -> list[str]:
        """Names of the scenes: "bodies-000000" and on; a larger count adds to a smaller one's.

        Raises:
          UserError: pybullet is not installed.
        """
        import_pybullet()
        return [f"bodies-{number:06}" for number in range(self.count)]

    def settings(self) -> JsonObject:
        """All but the count, on which a scene does not depend."""
        return {"form": _FORM, "height": self.height, "width": self.width, "frames": self.frames, "seed": self.seed}

    def clips(self, source: str) -> Iterator[Clip]:
        """The clip of a scene.

        Raises:
          UserError: there is no such scene, or pybullet is not installed.
        """
        number = re.fullmatch(r"bodies-(\d{6})", source)
        if number is None or int(number[1]) >= self.count:
            raise UserError(f"there is no scene '{source}': the last is 'bodies-{self.count - 1:06}'")
        digest = hashlib.sha256(f"{self.seed}/{source}".encode()).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
        with World() as world:
            pictures, caption = make_scene(rng, world, self.frames, self.height, self.width)
        yield clip_of_pictures(
            pictures, fps=FPS, id=f"{source}/0", source=source, caption=caption, caption_from="simulation"
        )
