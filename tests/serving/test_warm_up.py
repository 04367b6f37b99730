"""What is compiled at the start: nobody's job is lost by it, and the first clip comes at once."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np
import pytest

from tests.serving.world import PAIR, ROOT, FakeModel, Held, Server, pair, serving, until
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.request import DEFAULT_SEED, PreparedPair, SamplingOptions
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.server import page_address
from tooncrafter_jax.typing import HostVideos

BLANK = [DEFAULT_SEED]
"""Seeds of a batch that compiles."""


def devices(server: Server) -> str:
    return server.ask("GET", "/v1/health").json["devices"]


def test_what_comes_while_the_server_compiles_waits_and_is_drawn(tmp_path: Path) -> None:
    held = Held()
    with serving(tmp_path, held.model, FakeModel("other"), warm_up=True) as server:
        client = server.client()
        id = client.submit(pair(7), PAIR)["id"]
        assert devices(server) == "compiling" and client.job(id)["state"] in ("waiting", "running")
        held.let_go()
        assert client.wait(id)["state"] == "done"
        until(lambda: devices(server) == "ready")
    assert held.model.batches[0] == BLANK and sorted(held.model.batches) == [[7], BLANK, BLANK]  # with a sketch, too


def test_the_sketch_of_what_compiles_has_a_line(tmp_path: Path) -> None:
    """Motion is bent to lines alone: a blank sketch leaves that program to the first client."""
    lines: list[bool] = []

    class Watched(FakeModel):
        def sample(
            self, pairs: Sequence[PreparedPair], options: SamplingOptions, on_progress: Any = None
        ) -> HostVideos:
            lines.extend(pair.hints is not None and bool(np.any(pair.hints)) for pair in pairs)
            return super().sample(pairs, options, on_progress)

    with serving(tmp_path, Watched(), warm_up=True) as server:
        until(lambda: devices(server) == "ready")
    assert lines == [False, True]


def test_a_server_that_does_not_compile_is_ready(tmp_path: Path) -> None:
    model = FakeModel()
    with serving(tmp_path, model) as server:
        assert devices(server) == "ready"
    assert model.batches == []


def test_a_server_ends_while_it_compiles(tmp_path: Path) -> None:
    start = time.monotonic()
    with serving(tmp_path, FakeModel(seconds=0.05, chunks=1000), warm_up=True) as server:
        assert devices(server) == "compiling"
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", [UserError, RuntimeError])
def test_a_model_that_cannot_be_compiled_costs_no_server(tmp_path: Path, kind: type[Exception]) -> None:
    def refuse(seeds: Sequence[int]) -> None:
        raise kind("the model is damaged")

    with serving(tmp_path, FakeModel(before=refuse), FakeModel("other"), warm_up=True) as server:
        until(lambda: devices(server) == "ready")
        client = server.client()
        assert client.wait(client.submit(pair(model="other"), PAIR)["id"])["state"] == "done"
        with pytest.raises(UserError, match="the model is damaged" if kind is UserError else "went wrong inside"):
            client.wait(client.submit(pair(), PAIR)["id"])


def test_a_clip_that_may_not_be_drawn_is_not_compiled(tmp_path: Path) -> None:
    model = FakeModel()
    limits = Limits(free_megabytes=0, clip_frames=8)
    with serving(tmp_path, model, limits=limits, warm_up=True) as server:
        until(lambda: devices(server) == "ready")
    assert model.batches == []


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://127.0.0.1:80/"),
        ("::", "http://[::1]:80/"),
        ("::1", "http://[::1]:80/"),
        ("draw.example", "http://draw.example:80/"),
    ],
)
def test_where_a_browser_finds_the_server(host: str, address: str) -> None:
    assert page_address(host, 80) == address


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[Queue[str]]:
    """`tooncrafter app` in a process of its own: the lines that it says. Its browser writes down where it was sent."""
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder / "opened"}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    own = ("--port=0", f"--data={folder / 'data'}", "--free-megabytes=0", f"--compilation-cache={folder / 'xla'}")
    process = subprocess.Popen(
        [sys.executable, "-m", "tooncrafter_jax", "app", *own, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "BROWSER": f"{browser} %s"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: Queue[str] = Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip())

    Thread(target=read, daemon=True).start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait()


def heard(lines: Queue[str], words: str, seconds: float) -> str:
    """The line that has these words."""
    until, said = time.monotonic() + seconds, list[str]()
    while (left := until - time.monotonic()) > 0:
        try:
            said.append(lines.get(timeout=left))
        except Empty:
            break
        if words in said[-1]:
            return said[-1]
    raise AssertionError("\n".join(said))


@pytest.mark.gate
def test_the_browser_is_shown_the_server(tmp_path: Path) -> None:
    with command(tmp_path, "--open", "--no-warm-up") as lines:
        url = heard(lines, "listening on ", 120).split()[-1]
        opened = tmp_path / "opened"
        assert until(lambda: opened.exists() and opened.read_text()) == f"{url}/\n"
        client = Client(url)
        assert [one["name"] for one in client.models()] == ["small"]


@pytest.mark.slow
def test_a_clip_of_small_comes_within_ten_seconds(tmp_path: Path) -> None:
    with command(tmp_path) as lines:
        url = heard(lines, "listening on ", 120).split()[-1]
        heard(lines, "compiling", 5)
        client, start = Client(url), time.monotonic()
        heard(lines, "ready", 230)
        print(f"\ncompiled in {time.monotonic() - start:.1f} s", end="")
        pictures: dict[str, bytes] = {
            name: (ROOT / "examples" / "penguin" / f"{name}.png").read_bytes() for name in ("first", "last")
        }
        sketch = (ROOT / "examples" / "waving_hand" / "sketch_8.png").read_bytes()
        for more, sent in (({}, pictures), ({"sketches": {"8": "sketch"}}, {**pictures, "sketch": sketch})):
            start = time.monotonic()
            job = client.wait(client.submit({"first": "first", "last": "last", **more}, sent)["id"])
            video = client.result(job["id"], "mp4")
            seconds = time.monotonic() - start
            print(f", a clip {'with a sketch ' if more else ''}in {seconds:.1f} s", end="")
            assert re.match(rb"....ftyp", video, re.S) and seconds < 10
