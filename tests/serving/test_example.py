"""The example of a first start."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.serving.world import FREE, Server, serving, until
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.example import ball

PAGE = {"Sec-Fetch-Site": "same-origin"}


def session(server: Server, headers: dict[str, str] = PAGE) -> str:
    answer = server.ask("POST", "/v1/session", headers=headers)
    assert answer.status == 201
    return answer.json["key"]


def jobs(server: Server, key: str) -> list[dict[str, object]]:
    return server.ask("GET", "/v1/jobs", key).json["jobs"]


def test_the_first_page_finds_an_example(tmp_path: Path) -> None:
    with serving(tmp_path, has_example=True) as server:
        assert jobs(server, session(server, {})) == []  # of a program
        key = session(server)
        (job,) = jobs(server, key)
        assert job["kind"] == "shot" and isinstance(job["id"], str)
        until(lambda: jobs(server, key)[0]["state"] == "done")
        frames = Client(server.url, key=key).frames(job["id"])
        assert len(frames) == 16 and np.abs(frames[0].astype(int) - frames[-1]).mean() > 5
        assert jobs(server, session(server)) == []
    with serving(tmp_path, has_example=True) as server:
        assert jobs(server, session(server)) == [] and len(jobs(server, key)) == 1
    with serving(tmp_path / "other") as server:
        assert jobs(server, session(server)) == []


def test_a_server_that_cannot_draw_it_lets_the_page_in(tmp_path: Path) -> None:
    with serving(tmp_path, has_example=True, free=lambda: -1, limits=FREE) as server:
        assert jobs(server, session(server)) == []


def test_the_ball_is_where_it_should_be() -> None:
    picture = np.asarray(ball(80, 120, 0.25, 0.5)).astype(int)
    assert picture.shape == (80, 120, 3)
    assert np.abs(picture[45, 20] - (242, 177, 52)).max() < 9 and np.abs(picture[5, 110] - (191, 227, 245)).max() < 9
