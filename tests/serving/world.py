"""What the tests of the service share: a model that costs nothing, and servers in a thread or a process."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from PIL import Image

from tooncrafter_jax.models.configuration import COMPONENTS, tiny
from tooncrafter_jax.sampling.batch.model_source import DescribedModel
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.serving.api import make_app
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.devices import ServedModel
from tooncrafter_jax.serving.engine import Engine
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.security import Access
from tooncrafter_jax.serving.server import configured
from tooncrafter_jax.serving.storage import Storage
from tooncrafter_jax.typing import HostVideos

FREE = Limits(free_megabytes=0)
ROOT = Path(__file__).parents[2]
SMALL = {"height": 64, "width": 64, "frames": 5, "steps": 4}
"""Options of a clip that costs nothing."""


@dataclass
class FakeModel:
    """A `ServedModel` that cross-fades; its brightness depends on the seed.

    Attributes:
      batches: seeds of each batch that was drawn.
      seconds: that a chunk of steps takes.
      before: called with the seeds of a batch before it is drawn.
      chunks: of steps.
      broken_seed: clips of this seed become NaN.
    """

    name: str = "tiny"
    dtype: str = "float32"
    batches: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0
    chunks: int = 4
    before: Callable[[Sequence[int]], None] = lambda seeds: None
    broken_seed: int | None = None
    described: DescribedModel = DescribedModel({"weights": "none"}, tiny(), COMPONENTS, {"guidance_scale": 5.0})
    made_by: Mapping[str, Any] = field(default_factory=lambda: {"platform": "a test"})

    def sample(
        self,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> HostVideos:
        """Draws clips."""
        self.before([pair.seed for pair in pairs])
        self.batches.append([pair.seed for pair in pairs])
        mix = np.linspace(0, 1, options.frames, dtype=np.float32)[:, None, None, None]
        videos = np.stack([pair.ends[0] * (1 - mix) + pair.ends[1] * mix + pair.seed % 1000 / 1000 for pair in pairs])
        for chunk in range(1, self.chunks + 1):
            time.sleep(self.seconds)
            if on_progress is not None:
                preview = ((videos.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
                on_progress(Progress(chunk, self.chunks, lambda preview=preview: preview))
        for pair, video in zip(pairs, videos, strict=True):
            if pair.seed == self.broken_seed:
                video[:] = np.nan
        return videos.astype(np.float32)


def picture(value: int = 90, height: int = 64, width: int = 64) -> bytes:
    """A PNG file with a slope in it."""
    from io import BytesIO

    columns = np.linspace(0, 100, width).astype(np.uint8)
    array = np.broadcast_to(columns[None, :, None], (height, width, 3)) + np.uint8(value)
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG")
    return buffer.getvalue()


PAIR = {"a": picture(20), "b": picture(60)}


def pair(seed: int = 1, **changes: Any) -> dict[str, Any]:
    """A request for a clip."""
    options = SMALL | changes.pop("options", {})
    return {"first": "a", "last": "b", "seed": seed, "options": options} | changes


def shot(gaps: int = 2, **changes: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A request for a shot, and its pictures."""
    pictures = {f"key-{number}": picture(20 * number % 150) for number in range(gaps + 1)}
    keys = {str(4 * number): name for number, name in enumerate(pictures)}
    return {"keys": keys, "options": SMALL} | changes, pictures


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A server that runs in this process.

    Attributes:
      port: that it listens on.
      engine: makes its jobs.
      access: knows its clients.
    """

    port: int
    engine: Engine
    access: Access

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **settings: Any) -> Client:
        return Client(self.url, patience=20.0, timeout=20.0, **settings)

    def ask(
        self,
        method: str,
        path: str,
        key: str = "",
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """A request with these headers, whatever they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        own = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request(method, path, body, {**own, **headers})
        answer = connection.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found


@contextmanager
def serving(
    folder: Path,
    *models: ServedModel,
    limits: Limits = FREE,
    batch_size: int = 1,
    token: bool = False,
    free: Callable[[], int] | None = None,
    gathering_seconds: float = 0.02,
    warm_up: bool = False,
    **settings: Any,
) -> Iterator[Server]:
    """A server of this folder, which has ended afterwards."""
    with Storage(folder, free=free, reserve=limits.free_megabytes * 10**6) as storage:
        served: dict[str, ServedModel] = {model.name: model for model in models or (FakeModel(),)}
        timing = {"batch_size": batch_size, "gathering_seconds": gathering_seconds}
        engine = Engine(storage, served, limits, **timing, warm_up=warm_up)
        access = Access(storage.database, needs_token=token)
        app = make_app(engine, access, limits, **settings)
        config = configured(app, "127.0.0.1", 0)
        socket = config.bind_socket()
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        try:
            yield Server(socket.getsockname()[1], engine, access)
        finally:
            server.should_exit = True
            thread.join(20)
            socket.close()
            assert not thread.is_alive()


class Held:
    """A model that draws nothing until it is let go."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self.model = FakeModel(before=lambda seeds: self._wait())

    def _wait(self) -> None:
        assert self._go.wait(60)

    def let_go(self) -> None:
        """Draws."""
        self._go.set()


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """What a condition gives, once it holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


class Process:
    """A server in a process of its own, whose model takes this long for a chunk of steps."""

    def __init__(self, folder: Path, seconds: float) -> None:
        code = f"from tests.serving.process import main; main({str(folder)!r}, {seconds})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("listening on "):
                self.url = line.split()[-1]
                return
        raise AssertionError("".join(lines))

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
