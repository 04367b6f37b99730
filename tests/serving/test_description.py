"""Requests that are made up from the OpenAPI description, right ones and wrong ones: the server never breaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.serving.world import FakeModel, Server, serving
from tooncrafter_jax.serving.limits import Limits

schemathesis = pytest.importorskip("schemathesis", reason="needs the extra 'dev'")
EXAMPLES = 12
"""A route; more find what fewer do, as most of a request is refused by its first mistake."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = Limits(free_megabytes=0, requests_per_minute=10**7, jobs_per_client=10**6, all_jobs=10**6)
    with serving(tmp_path_factory.mktemp("serving"), FakeModel(), limits=limits) as one:
        yield one


@pytest.fixture(scope="module")
def api_schema(server: Server):
    return schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json")


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    derandomize=True,
)
def test_no_request_breaks_the_server(case, server: Server) -> None:
    key = server.access.new_client()
    answer = case.call(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=20)
    assert answer.status_code < 500, answer.text
    if answer.status_code == 422:
        assert isinstance(answer.json()["detail"], str)
