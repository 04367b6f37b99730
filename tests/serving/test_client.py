"""The client in Python: what it says where a server is none, or is named wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.comfyui_node import seconds_of

URLS = (
    "localhost:8512",
    "http://",
    "http://localhost:85l2",
    "http://localhost:99999",
    "http://[::1",
    "http://user:password@localhost:8512",
    "ftp://localhost",
)


@pytest.mark.parametrize("url", URLS)
def test_what_is_no_address_of_a_server_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(UserError, match="is no server|no user and no password") as error:
        Client(url)
    assert "http://127.0.0.1:8512" in str(error.value)


@pytest.mark.parametrize("url", ["http://localhost:9/a b", "http://localhost:9/ü", f"http://{'x' * 70}.example:9"])
def test_what_cannot_be_asked_is_not_reached(url: str) -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        Client(url)


@pytest.mark.parametrize("token", ["a\nb", "a\r\nb", "a b", "ü"])
def test_what_is_no_token_is_refused_in_a_sentence(token: str) -> None:
    with pytest.raises(UserError, match="copy it again"):
        Client("http://localhost:9", token=token)


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 1), ("", 1), ("7", 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 1), ("1e9", 60), ("0", 0.1)]
)
def test_when_to_come_again(text: str | None, seconds: float) -> None:
    assert seconds_of(text) == seconds


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A server that always says the same: its address, and the authorizations that were sent."""
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'"key"'])
def test_another_program_s_server_is_told_from_ours(body: bytes) -> None:
    with answering(200, body) as (url, _), pytest.raises(UserError, match="is no server of tooncrafter-jax"):
        Client(url)


def test_a_line_end_after_the_token_is_none_of_it() -> None:
    with answering(200, b'{"key": "k"}') as (url, sent):
        assert Client(url, token="secret\r\n").key == "k" and sent == ["Bearer secret"]


def test_a_busy_server_may_name_a_date() -> None:
    with answering(429, b'{"detail": "later"}', Retry_After="Wed, 21 Oct 2015 07:28:00 GMT") as (url, _):
        with pytest.raises(UserError, match="refuses: later"):
            Client(url, patience=0.0)
