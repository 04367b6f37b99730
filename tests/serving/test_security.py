"""Who is let in, and how much of everything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from tests.serving.world import PAIR, Answer, FakeModel, Held, Server, pair, picture, serving, until
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.security import COOKIE, HEADERS, Access, Guard, is_encrypted, is_local, token_is_needed
from tooncrafter_jax.serving.storage import Storage
from tooncrafter_jax.serving.uploads import FORMS_OF_A_CLIENT


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
    key, name = answer.json["key"], server.access.cookie
    assert cookie.startswith(f"{name}={key};") and name.startswith(f"{COOKIE}-")
    assert server.ask("GET", "/v1/jobs", headers={"Cookie": f"{name}={key}"}).status == 200
    for wrong in (f"{name}={key}x", f"{COOKIE}-other={key}", f"{name}=", "=;;", f"{name}={'x' * 9999}"):
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


@pytest.mark.parametrize(
    ("host", "names", "needed"),
    [
        ("127.0.0.1", (), False),
        ("127.0.0.1", ("localhost",), False),
        ("127.0.0.1", ("draw.studio.example",), True),  # a proxy on this machine lets others in
        ("0.0.0.0", (), True),
    ],
)
def test_a_server_that_others_reach_needs_a_token(host: str, names: tuple[str, ...], needed: bool) -> None:
    assert token_is_needed(host, names) == needed


@pytest.mark.parametrize(
    ("headers", "encrypted"),
    [
        ({"host": "draw.studio.example", "origin": "https://draw.studio.example"}, True),
        ({"host": "draw.studio.example", "origin": "http://draw.studio.example"}, False),
        ({"host": "draw.studio.example", "sec-fetch-site": "same-origin"}, True),  # a page reads: without Origin
        ({"host": "localhost:8512", "sec-fetch-site": "same-origin"}, False),
        ({"host": "[::1]:8512", "sec-fetch-site": "none"}, False),
        ({"host": "draw.studio.example"}, False),
    ],
)
def test_whether_a_browser_came_by_https(headers: dict[str, str], encrypted: bool) -> None:
    assert is_encrypted(Headers(headers)) == encrypted


def test_a_cookie_lasts_as_long_as_it_is_used_and_goes_by_https_alone_where_it_came_so(server: Server) -> None:
    made = server.ask("POST", "/v1/session", headers={"Host": "localhost", "Origin": "https://localhost"})
    assert "Secure" in made.headers["set-cookie"]
    key, name = made.json["key"], server.access.cookie
    renewed = server.ask("GET", "/v1/models", headers={"Cookie": f"{name}={key}"}).headers["set-cookie"]
    assert renewed.startswith(f"{name}={key};") and "Max-Age=31536000" in renewed and "Secure" not in renewed
    assert "set-cookie" not in server.ask("GET", "/v1/models", key).headers  # which is no browser


def test_two_servers_of_a_machine_have_cookies_of_their_own(tmp_path: Path) -> None:
    names = []
    for folder in ("one", "other", "one"):
        with Storage(tmp_path / folder) as storage:
            names.append(Access(storage.database, needs_token=False).cookie)
    assert names[0] == names[2] != names[1]


def test_who_has_jobs_is_known_again_once_the_token_is_given(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        client = server.client()
        id = client.submit(pair(), PAIR)["id"]
        old, idle = server.access.cookie, server.client().key
    with serving(tmp_path, token=True, host="0.0.0.0") as server:
        token = server.access.new_token()  # which forgets everybody
        for name in (old, COOKIE):  # that of an earlier version, or of a database that was built again
            cookie = {"Cookie": f"{name}={client.key}"}
            assert server.ask("POST", "/v1/session", headers=cookie).status == 401
            assert server.ask("POST", "/v1/session", token, headers=cookie).json["key"] == client.key
            assert server.ask("GET", f"/v1/jobs/{id}", client.key).status == 200
            server.engine.storage.database.forget_clients()
        assert server.ask("POST", "/v1/session", token, headers={"Cookie": f"{old}={idle}"}).json["key"] != idle


def test_who_has_pictures_alone_is_known_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        made = server.ask("POST", "/v1/session").json
        storage, key = server.engine.storage, made["key"]
        path = storage.incoming()
        path.write_bytes(picture())
        storage.take_picture(path, server.access.id_of(key), "a")
        storage.database.forget_clients()
        again = server.ask("POST", "/v1/session", headers={"Cookie": f"{server.access.cookie}={key}"}).json
    assert made["is_new"] and again == {"key": key, "is_new": False}


def test_no_key_is_that_of_the_token_s_own_client(tmp_path: Path) -> None:
    with serving(tmp_path, token=True, host="0.0.0.0") as server:
        token = server.access.new_token()
        server.client(key=token).submit(pair(), PAIR)
        guess = "the token"
        server.engine.storage.database.add_client(server.access.id_of(guess))  # as where the database is built again
        assert server.ask("GET", "/v1/jobs", guess).status == 401
        cookie = {"Cookie": f'{server.access.cookie}="{guess}"'}
        assert server.ask("POST", "/v1/session", token, headers=cookie).json["key"] != guess


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
        assert 1 <= int(late.headers["retry-after"]) <= 4 and "too many requests" in late.json["detail"]
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
        with pytest.raises(UserError, match="at most 2 pictures"):
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


def test_slow_uploads_of_a_client_keep_no_other_waiting(tmp_path: Path) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=y"}
    limits = Limits(free_megabytes=0, requests_per_minute=10**6)  # which asking again and again would meet
    with serving(tmp_path, limits=limits) as server, contextlib.ExitStack() as sending:
        slow, other = server.client(), server.client()
        head = f"POST /v1/pictures HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {slow.key}\r\n"
        head += f"Content-Type: {form['Content-Type']}\r\nContent-Length: 999\r\n\r\n--y"
        for _ in range(FORMS_OF_A_CLIENT + 2):  # one of them may find the place taken of what asks below
            one = sending.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            one.sendall(head.encode())

        def ask() -> Answer:
            return server.ask("POST", "/v1/pictures", slow.key, b"--y--\r\n", form)

        answer = until(lambda: (found := ask()).status == 429 and found)
        assert "at a time" in answer.json["detail"] and int(answer.headers["retry-after"]) >= 5
        assert other.wait(other.submit(pair(), PAIR)["id"])["state"] == "done"
        sending.close()
        until(lambda: ask().status == 422)


def test_what_waits_before_it_is_read_is_not_slow() -> None:
    read = list[Message]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.3)
        read.append(await receive())

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    guard = Guard(app, "127.0.0.1", (), Limits(upload_seconds=0.2), lambda status: None)
    asyncio.run(guard({"type": "http", "path": "/v1/jobs", "headers": [(b"host", b"localhost")]}, receive, send))
    assert read[0]["body"] == b"x"


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
