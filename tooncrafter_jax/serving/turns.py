"""Whose turn it is: which of the jobs that wait begins next, beside those that run."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence

from tooncrafter_jax.serving.database import Job, Waiting

MOST_SHOTS = 16
"""Shots that run at a time; one a client. They draw clip by clip, among all others."""
MOST_REMEMBERED = 10_000
"""Clients whose last turn is remembered; the one that had it longest ago is forgotten first."""


class Turns:
    """Chooses what begins.

    Args:
      places: pairs that run at a time.

    Attributes:
      suspects: ids of jobs that ran when a server ended, perhaps by their fault. They come first, and until one has
        drawn a clip nothing that has not begins beside it: what ends this server takes no other job with it.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._begun: OrderedDict[str, int] = OrderedDict()
        self._turn = 0
        self._proven: set[str] = set()
        self.suspects: set[str] = set()

    def next(self, waiting: Sequence[Waiting], active: Mapping[str, Job]) -> Waiting | None:
        """The job that begins next: of the client with the fewest that run, and of those the one that waited longest
        for its turn. Long shots leave places to others.

        Args:
          waiting: in the order in which they came.
          active: id -> job that runs.
        """
        if not self.suspects.isdisjoint(active):
            return None
        here = [job for job in waiting if job.id not in active]  # one may be put back before its thread has ended
        suspect = next((job for job in here if job.id in self.suspects), None)
        if suspect is not None:
            return suspect if self._proven.issuperset(active) else None
        shots = [job.client for job in active.values() if job.kind == "shot"]
        pairs_fit, shots_fit = len(active) - len(shots) < self._places, len(shots) < MOST_SHOTS
        if not (pairs_fit or shots_fit):
            return None
        running = Counter(job.client for job in active.values())
        fitting = (job for job in here if (shots_fit and job.client not in shots if job.kind == "shot" else pairs_fit))
        return min(
            fitting, key=lambda job: (running[job.client], self._begun.get(job.client, -1), job.number), default=None
        )

    def begins(self, client: str) -> None:
        """Says that a job of a client begins."""
        self._turn += 1
        self._begun[client] = self._turn
        self._begun.move_to_end(client)
        if len(self._begun) > MOST_REMEMBERED:
            self._begun.popitem(last=False)

    def draws(self, id: str) -> bool:
        """Says that a job has drawn a clip; gives whether it was a suspect until now."""
        self._proven.add(id)
        was_suspect = id in self.suspects
        self.suspects.discard(id)
        return was_suspect

    def ends(self, id: str) -> None:
        """Says that a job runs no longer."""
        self._proven.discard(id)
