"""Requests that are made up from the OpenAPI description, right ones and wrong ones: the server never breaks."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serving.world import PAIR, FakeModel, Server, pair, serving
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.limits import Limits

schemathesis = pytest.importorskip("schemathesis", reason="needs the extra 'dev'")
EXAMPLES = 8
"""A route."""
ROUTES = (
    "POST /v1/session",
    "GET /v1/health",
    "GET /v1/metrics",
    "GET /v1/models",
    "POST /v1/pictures",
    "GET /v1/pictures/{sha256}",
    "DELETE /v1/pictures/{sha256}",
    "POST /v1/timesheets",
    "POST /v1/jobs",
    "GET /v1/jobs",
    "GET /v1/jobs/{id}",
    "GET /v1/jobs/{id}/preview",
    "GET /v1/jobs/{id}/result/{form}",
    "POST /v1/jobs/{id}/cancel",
    "GET /v1/jobs/{id}/events",
    "GET /v1/events",
    "DELETE /v1/jobs/{id}",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = Limits(
        free_megabytes=0, requests_per_minute=10**7, jobs_per_client=10**6, all_jobs=10**6, clip_pixels=2**14
    )
    with serving(tmp_path_factory.mktemp("serving"), FakeModel(), limits=limits) as one:
        yield one


@pytest.fixture(scope="module")
def done(client: Client) -> dict[str, Any]:
    """A clip that is done."""
    return client.wait(client.submit(pair(), PAIR)["id"])


@pytest.fixture(scope="module")
def operations(server: Server) -> dict[str, Any]:
    schema = schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json")
    return {one.ok().label: one.ok() for one in schema.get_all_operations()}


def test_every_route_is_tried(operations: dict[str, Any]) -> None:
    assert set(operations) == set(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_no_request_breaks_the_server(
    operations: dict[str, Any], server: Server, client: Client, done: dict[str, Any], route: str
) -> None:
    """Every other request names what is there, or it would be refused by its first mistake."""
    known = itertools.cycle([True, False])
    seen: Counter[int] = Counter()

    @given(case=operations[route].as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    def ask(case: Any) -> None:
        if next(known):
            if "id" in case.path_parameters:
                case.path_parameters["id"] = done["id"]
            if "id" in case.query:
                case.query["id"] = [done["id"]]
            if "sha256" in case.path_parameters:
                case.path_parameters["sha256"] = done["pictures"]["a"]
            if isinstance(case.body, dict) and route == "POST /v1/jobs":
                _name(case.body, done["pictures"]["a"])
        answer = case.call(base_url=server.url, headers={"Authorization": f"Bearer {client.key}"}, timeout=20)
        seen[answer.status_code] += 1
        assert answer.status_code < 500, answer.text
        if answer.status_code == 422:
            assert isinstance(answer.json()["detail"], str)

    ask()
    assert seen


def _name(request: dict[str, Any], picture: str) -> None:
    """Names a picture that is there wherever a request names one."""
    for end in ("first", "last"):
        if end in request:
            request[end] = picture
    for mapping in ("keys", "sketches"):
        if isinstance(request.get(mapping), dict):
            request[mapping] = dict.fromkeys(request[mapping], picture)
    if isinstance(request.get("draft"), list):
        request["draft"] = [picture] * len(request["draft"])


def test_nothing_is_left_of_refused_requests(server: Server, tmp_path: Path) -> None:
    assert not list((server.engine.storage.folder / "incoming").iterdir())
