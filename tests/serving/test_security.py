"""Who is let in, and how much of everything."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.serving.world import PAIR, FakeModel, Held, Server, pair, serving, until
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.security import COOKIE, HEADERS, is_local


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("serving"), names=["draw.studio.example"]) as one:
        yield one


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Host": "localhost"}, 201),
        ({"Host": "[::1]:80"}, 201),
        ({"Host": "draw.studio.example"}, 201),
        ({"Host": "evil.example"}, 421),  # whose name was made to lead here
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "192.168.1.7"}, 421),  # this server listens to this machine alone
        ({"Host": "["}, 421),
        ({"Host": "localhost", "Origin": "http://localhost"}, 201),
        ({"Host": "localhost", "Origin": "https://localhost"}, 201),  # a proxy has the certificate
        ({"Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:80", "Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Content-Length": "x"}, 400),
        ({"Content-Length": str(2 * 10**9)}, 413),
    ],
)
def test_where_a_request_may_come_from(server: Server, headers: Mapping[str, str], status: int) -> None:
    assert server.ask("POST", "/v1/session", headers=headers).status == status


def test_every_answer_has_the_headers_of_security(server: Server) -> None:
    for path in ("/", "/v1/health", "/v1/jobs", "/v1/nothing", "/v1/openapi.json"):
        answer = server.ask("GET", path)
        assert {name: answer.headers.get(name.lower()) for name in HEADERS} == HEADERS
        assert "unsafe-inline" not in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    refused = server.ask("GET", "/v1/jobs", headers={"Host": "evil.example"})
    assert (
        refused.headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in refused.headers
    )


def test_a_key_is_a_cookie_that_no_script_and_no_other_site_gets(server: Server) -> None:
    answer = server.ask("POST", "/v1/session")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    key = answer.json["key"]
    assert server.ask("GET", "/v1/jobs", headers={"Cookie": f"{COOKIE}={key}"}).status == 200
    for wrong in (f"{COOKIE}={key}x", f"{COOKIE}=", "=;;", f"{COOKIE}={'x' * 9999}"):
        assert server.ask("GET", "/v1/jobs", headers={"Cookie": wrong}).status == 401
    for wrong in ("Bearer", "Bearer ", "Basic eDp5", "Bearer x", f"Bearer {key} {key}", "\xff"):
        assert server.ask("GET", "/v1/jobs", headers={"Authorization": wrong}).status == 401


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "")],
    ],
)
def test_which_addresses_need_a_token(host: str, local: bool) -> None:
    assert is_local(host) == local


def test_a_token_opens_the_door(tmp_path: Path) -> None:
    with serving(tmp_path, token=True, host="0.0.0.0") as server:
        token = server.access.new_token()
        assert token not in "".join(path.read_bytes().decode("latin1") for path in tmp_path.glob("jobs.sqlite*"))
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {token[:-1]}"}):
            for method, path in (("POST", "/v1/session"), ("GET", "/v1/jobs"), ("GET", "/v1/metrics")):
                assert server.ask(method, path, headers=headers).status == 401
        assert server.ask("GET", "/v1/health").status == 200
        assert server.ask("GET", "/v1/metrics", token).status == 200
        client, other = server.client(token=token), server.client(token=token)
        assert client.wait(client.submit(pair(), PAIR)["id"])["state"] == "done"
        assert server.ask("GET", "/v1/jobs", other.key).json["jobs"] == []
        assert server.ask("GET", "/v1/jobs", token).json["jobs"] == []  # a client of its own
        assert server.ask("GET", "/v1/jobs", token, headers={"Host": "10.0.0.1"}).status == 200
        assert server.ask("GET", "/v1/jobs", token, headers={"Host": "evil.example"}).status == 421
        server.access.new_token()
        assert server.ask("GET", "/v1/jobs", client.key).status == 401
        with pytest.raises(UserError, match="needs its token"):
            server.client(token=token)


def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(free_megabytes=0, requests_per_minute=30)) as server:
        key = server.ask("POST", "/v1/session").json["key"]
        answers = [server.ask("GET", "/v1/jobs", key) for _ in range(40)]
        assert {answer.status for answer in answers} == {200, 429}
        late = answers[-1]
        assert 1 <= int(late.headers["retry-after"]) <= 4 and "more often" in late.json["detail"]
        assert server.ask("POST", "/v1/session").status == 201  # another client is none of it


def test_queues_are_bounded(tmp_path: Path) -> None:
    limits = Limits(free_megabytes=0, jobs_per_client=2, all_jobs=3)
    held = Held()
    with serving(tmp_path, held.model, limits=limits) as server:
        impatient = Client(server.url, patience=0.0)
        for seed in (1, 2):
            impatient.submit(pair(seed), PAIR)
        with pytest.raises(UserError, match="you have 2 jobs"):
            impatient.submit(pair(3), PAIR)
        other = Client(server.url, patience=0.0)
        other.submit(pair(4), PAIR)
        with pytest.raises(UserError, match="3 jobs wait or run"):
            other.submit(pair(5), PAIR)
        held.let_go()


def test_uploads_are_bounded(tmp_path: Path) -> None:
    limits = Limits(free_megabytes=0, upload_megabytes=1, upload_pictures=2)
    with serving(tmp_path, limits=limits) as server:
        client = server.client()
        with pytest.raises(UserError, match="more than 1 MB"):
            client.submit(pair(), PAIR | {"a": bytes(2 * 10**6)})
        chunks = iter([b"x" * 10**5] * 20)  # of unknown length
        headers = {"Content-Type": "multipart/form-data; boundary=y"}
        answer = server.ask("POST", "/v1/jobs", client.key, chunks, headers)
        assert answer.status in (400, 413)
        answer = server.ask(
            "POST", "/v1/jobs", client.key, iter([b" " * 10**5] * 20), {"Content-Type": "application/json"}
        )
        assert answer.status == 413
        with pytest.raises(UserError, match="[Tt]oo many files"):
            client.submit(pair(sketches={"1": "c", "2": "d"}), PAIR | {"c": b"x", "d": b"x"})
        assert not list((tmp_path / "incoming").iterdir())


def test_a_slow_upload_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(free_megabytes=0, upload_seconds=0.3)) as server:
        key = server.ask("POST", "/v1/session").json["key"]
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 999\r\n\r\n{{".encode())
            start = time.monotonic()
            assert b"408" in slow.recv(1000).split(b"\r\n")[0] and time.monotonic() - start < 5
        client = server.client()
        assert client.wait(client.submit(pair(), PAIR)["id"])["state"] == "done"


def test_a_nearly_full_disk_takes_no_jobs_and_loses_none(tmp_path: Path) -> None:
    room = 10**9
    with serving(tmp_path, FakeModel(seconds=0.1), free=lambda: room, limits=Limits(free_megabytes=10)) as server:
        client = server.client()
        first, second = (client.submit(pair(seed), PAIR)["id"] for seed in (1, 2))
        until(lambda: client.job(first)["state"] == "running")
        room = 10**6
        with pytest.raises(UserError, match="nearly full"):
            client.submit(pair(3), PAIR)
        refused = server.ask(
            "POST", "/v1/jobs", client.key, b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert refused.status == 507
        assert client.wait(first)["state"] == "done"
        time.sleep(0.2)
        third = server.engine.storage.database.count("waiting", "running", "done")
        assert third == 2
        room = 10**9
        assert client.wait(second)["state"] == "done"
