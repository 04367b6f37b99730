"""What the parts of curation must be, so that a user can put an own one in any place.

Curation goes: a `Production` makes clips of each of its sources; every `Stage` adds what it measures to a clip;
thresholds, duplicates and splits are decided over the whole set from what is in the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.typing import JsonObject


@runtime_checkable
class Production(Protocol):
    """Where clips come from: a folder of films, a collection of animated pictures, a simulation.

    It can be sent to other processes, and makes the same clips of a source every time.
    """

    @property
    def name(self) -> str:
        """In one word, e.g. "films"."""
        ...

    def sources(self) -> Sequence[str]:
        """Names of the films or subjects, unique; clips of one are never in two splits."""
        ...

    def clips(self, source: str) -> Iterator[Clip]:
        """The clips of a source, in order.

        Raises:
          UserError: the source cannot be read; curation reports it and goes on with the others.
        """
        ...

    def settings(self) -> JsonObject:
        """Everything the clips depend on, as JSON values: when it changes, the clips are made again."""
        ...


@runtime_checkable
class ChangingSources(Protocol):
    """What a `Production` has in addition when its sources can change behind their names, as files do."""

    def state(self, source: str) -> JsonObject:
        """What tells the source's content from another, as JSON values, e.g. a file's size and time of change.

        When it changes, the clips of this source are made again, and those of the others are not.

        Raises:
          UserError: the source cannot be read.
        """
        ...


@runtime_checkable
class Stage(Protocol):
    """Measures something on a clip: a pure function of the record.

    It can be sent to other processes; a model is loaded at the first call there, not before.
    """

    @property
    def name(self) -> str:
        """In one word, e.g. "motion"."""
        ...

    def __call__(self, clip: Clip) -> Clip:
        """The clip with what was measured (`dataclasses.replace`); all else stays as it is."""
        ...

    def settings(self) -> JsonObject:
        """Everything the measurement depends on, as JSON values: when it changes, it is measured again."""
        ...
