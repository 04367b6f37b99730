"""What `tooncrafter sample` draws as one clip that is more than a pair: a shot, or the shots of a time sheet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from tooncrafter_jax.io.owned_files import Stamps
from tooncrafter_jax.sampling.batch.jobs import NamedJob
from tooncrafter_jax.sampling.frame_room import Room
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.sequence import Shot
from tooncrafter_jax.sampling.sheet_drawing import Draw, DrawnScene
from tooncrafter_jax.typing import JsonObject

RequestOf = Callable[[Shot, SamplingOptions], JsonObject]
"""Everything that decides the frames of a shot, as `records.request_of_shot`."""


class SceneJob(NamedJob, ABC):
    """Shots that become one clip, and the name of its files."""

    @abstractmethod
    def shots(self, options: SamplingOptions) -> list[tuple[Shot, SamplingOptions]]:
        """The shots, each with its options.

        Raises:
          UserError: a picture that decides them cannot be read.
        """

    @abstractmethod
    def pictures(self) -> list[Path]:
        """The files of pictures that it is made from."""

    @abstractmethod
    def request(self, options: SamplingOptions, request_of: RequestOf, stamps: Stamps) -> JsonObject:
        """Everything that decides the frames, as plain values; pictures by path and checksum."""

    @abstractmethod
    def drawn(self, options: SamplingOptions, size: tuple[int, int], draw: Draw, room: Room) -> DrawnScene:
        """Draws it.

        Args:
          options: of the result.
          size: height and width of the result.
          draw: draws a shot.
          room: where the frames lie.
        """

    @abstractmethod
    def variation(self, number: int) -> SceneJob:
        """The same with another name, and seeds that are higher by a number."""

    def playback(self) -> tuple[float, str] | None:
        """Frames a second that its files get where none are asked for, and a sentence that says so; None: as all
        clips have.
        """
        return None

    def inputs(self) -> list[Path]:
        """All files that it is made from."""
        return self.pictures()
