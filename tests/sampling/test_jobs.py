"""What clips are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tooncrafter_jax.sampling.batch.jobs import Job, default_name, with_unique_names, with_variations
from tooncrafter_jax.sampling.request import Pair


def test_names_never_collide():
    pair = Pair("a.png", "b.png")
    jobs = with_unique_names([Job(name, pair) for name in ("a", "a", "a_2", "a")])
    assert [job.name for job in jobs] == ["a", "a_2", "a_2_2", "a_3"]
    many = with_variations(with_unique_names([Job(name, pair) for name in ("a", "a_sample0", "a")]), 2)
    assert len({job.name for job in many}) == 6


@pytest.mark.parametrize(("file", "name"), [("a.png", "a"), ("a.b.png", "a"), (".a.png", "a"), ("..png", "clip")])
def test_clips_are_called_by_their_first_picture_up_to_its_first_dot(file: str, name: str):
    assert default_name(Path("d.x") / file) == name
