"""The frames of a shot, put in their places as they are drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tooncrafter_jax.sampling.finishing import with_opacity
from tooncrafter_jax.sampling.frame_room import Room
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.sequence import Place
from tooncrafter_jax.sampling.shot_preparation import Drawn, PreparedShot


class Film:
    """The frames of a shot. Its keys are in place from the beginning, as they were drawn.

    Args:
      prepared: the shot.
      options: how it is drawn.
      room: where the frames lie.

    Attributes:
      video: uint8 (frames, H, W, 3), or (frames, H, W, 4) of a shot whose opacity is kept; frames without a picture
        until now have any content.
    """

    def __init__(self, prepared: PreparedShot, options: SamplingOptions, room: Room) -> None:
        self._options = options
        self._cels, self._places = prepared.cels, prepared.layout.places()
        height, width = next(iter(prepared.keys.values())).shape[:2]
        self.video = room((prepared.layout.frames, height, width, 3 if self._cels is None else 4))
        pictures = prepared.keys.values() if self._cels is None else self._cels.pictures
        for key, picture in zip(prepared.keys, pictures, strict=True):
            self._hold(key, picture)

    def put(self, pictures: Mapping[Place, Drawn]) -> None:
        """Shows pictures, over the background of a shot whose opacity is kept, in their places."""
        if self._cels is None or not pictures:
            shown = pictures
        else:  # each by itself: none of them is a key
            cels = with_opacity(self._cels, np.stack(list(pictures.values())), self._options, places={})
            shown = dict(zip(pictures, cels, strict=True))
        for place, picture in shown.items():
            self._hold(place, picture)

    def _hold(self, place: Place, picture: np.ndarray) -> None:
        if place in self._places:  # a loop does not show its last key
            self.video[self._places[place]] = picture
