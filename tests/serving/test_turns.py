"""Which job begins next."""

from __future__ import annotations

import pytest

from tooncrafter_jax.serving.database import Job, Waiting
from tooncrafter_jax.serving.turns import MOST_REMEMBERED, Turns


def waiting(*jobs: str) -> list[Waiting]:
    """Jobs such as "a1p": of the client a, number 1, a pair; or a shot."""
    return [Waiting(int(job[1]), job, job[0], {"p": "pair", "s": "shot"}[job[2]]) for job in jobs]


def active(*jobs: str) -> dict[str, Job]:
    return {job.id: Job(job.id, job.client, {}, {}, job.kind, "running") for job in waiting(*jobs)}


def chosen(turns: Turns, wait: str, run: str = "") -> str | None:
    found = turns.next(waiting(*wait.split()), active(*run.split()))
    return None if found is None else found.id


@pytest.mark.parametrize(
    ("wait", "run", "expected"),
    [
        ("", "", None),
        ("a1p a2p", "", "a1p"),
        ("a2p b3p", "a1p", "b3p"),  # of the client with the fewest that run
        ("a3s a4p", "a1s", "a4p"),  # one shot a client
        ("c3p", "a1p b2p", None),  # no place is left
        ("c3p d4s", "a1p b2p", "d4s"),  # but for shots
        ("a1p", "a1p", None),  # it was put back, and its thread has not ended
    ],
)
def test_whose_turn_it_is(wait: str, run: str, expected: str | None) -> None:
    assert chosen(Turns(2), wait, run) == expected


def test_clients_take_turns() -> None:
    turns = Turns(2)
    turns.begins("a")
    assert chosen(turns, "a1p b2p") == "b2p"
    turns.begins("b")
    assert chosen(turns, "b1p a2p") == "a2p"


def test_what_may_have_ended_a_server_runs_alone_until_it_has_drawn() -> None:
    turns = Turns(4)
    turns.suspects |= {"b2s", "b3p"}
    assert chosen(turns, "a1p b2s b3p") == "b2s"  # before all others
    assert chosen(turns, "a1p b3p", "b2s") is None
    assert turns.draws("b2s")
    assert chosen(turns, "a1p b3p", "b2s") == "b3p"  # beside what is not to blame
    assert chosen(turns, "a1p", "b2s b3p") is None
    turns.suspects.discard("b3p")
    assert chosen(turns, "a1p", "b2s") == "a1p"
    assert not turns.draws("b2s")


def test_a_suspect_does_not_begin_beside_what_has_drawn_nothing() -> None:
    turns = Turns(4)
    turns.suspects.add("b2p")
    assert chosen(turns, "b2p", "a1p") is None
    turns.draws("a1p")
    assert chosen(turns, "b2p", "a1p") == "b2p"
    turns.ends("a1p")
    assert chosen(turns, "b2p", "a1p") is None  # it began again


def test_not_every_client_is_remembered_for_ever() -> None:
    turns = Turns(4)
    for number in range(MOST_REMEMBERED + 1):
        turns.begins("a" if number == 0 else f"client {number}")
    assert chosen(turns, "a1p b2p") == "a1p"  # as one that never had a turn
