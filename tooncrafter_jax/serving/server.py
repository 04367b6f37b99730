"""Runs the service: a folder, models, and the address that is listened on."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.serving.api import make_app
from tooncrafter_jax.serving.devices import ServedModel
from tooncrafter_jax.serving.engine import Engine
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.security import Access, token_is_needed
from tooncrafter_jax.serving.storage import Storage

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8512
CONNECTIONS = 512
"""At a time; those beyond get 503."""
GRACE_SECONDS = 1
"""That answers on their way have when the server ends."""


def default_data() -> Path:
    """`$XDG_DATA_HOME/tooncrafter_jax/app`, by default below `~/.local/share`.

    Raises:
      UserError: this user has no home directory.
    """
    try:
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tooncrafter_jax" / "app"
    except RuntimeError as error:
        raise UserError("this user has no home directory: say where jobs are kept with --data") from error


def batch_size_for(devices: int, platform: str, wanted: int | None) -> int:
    """Clips of a batch: the power of two at or below what is wanted; by default 8 for each accelerator, and 1 on CPUs.

    Raises:
      UserError: it is below 1.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"--batch-size must be at least 1, not {wanted}")
    most = wanted or (1 if platform == "cpu" else 8 * devices)
    return 2 ** (most.bit_length() - 1)


def configured(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """How an application is served. Addresses are those of connections: no header of a proxy is believed."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,  # its own would end other libraries' handlers, and absl's closes its stream
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def serve(
    storage: Storage,
    models: Mapping[str, ServedModel],
    limits: Limits,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    names: Sequence[str] = (),
    batch_size: int = 1,
    new_token: bool = False,
    warm_up: bool = False,
    opens_page: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serves until the process is told to end.

    Args:
      storage: where everything is kept; no other server uses it.
      models: by name.
      limits: see there.
      host: the address to listen on; a token is needed unless it is this machine's own.
      port: of TCP; 0: any that is free.
      names: other names that the server is reached by; with one that is not this machine's own, a token is needed.
      batch_size: clips that are drawn together at most; a power of two.
      new_token: whether the token is made anew.
      warm_up: whether the first model is compiled for its usual size at the start.
      opens_page: whether this machine's browser is shown the server; the first time, with an example.
      say: prints a line; one that it cannot print is left out, but for the token.

    Raises:
      UserError: the address cannot be listened on.
    """
    access = Access(storage.database, needs_token=token_is_needed(host, names))
    if access.needs_token and (new_token or not access.has_token):
        say(f"the token, which is shown this once: {access.new_token()}")
    engine = Engine(storage, models, limits, batch_size=batch_size, warm_up=warm_up)
    tell = _while_heard(say)
    engine.devices.on_ready = lambda: tell("ready: the usual clip is compiled")
    app = make_app(engine, access, limits, host=host, names=names, has_example=opens_page)
    config = configured(app, host, port)
    try:
        bound = config.bind_socket()
    except SystemExit as error:  # which is how uvicorn says it
        raise UserError(f"{host}:{port} cannot be listened on: choose another --port, or --host") from error
    with bound:
        url = page_address(host, bound.getsockname()[1])

        def started() -> None:
            shown = f"[{host}]" if ":" in host else host
            tell(f"listening on http://{shown}:{bound.getsockname()[1]}")
            if engine.devices.has_chores:
                tell("compiling for the usual clip: what is asked for meanwhile waits")
            if opens_page:
                threading.Thread(target=_open, args=(url, tell), daemon=True).start()

        def ending() -> None:
            if engine.devices.has_chores:
                tell("ending, once what is being compiled is done")

        _Server(config, started, ending).run([bound])


def page_address(host: str, port: int) -> str:
    """Where a browser of this machine finds the server.

    Args:
      host: that it listens on.
      port: the same.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _while_heard(say: Callable[[str], None]) -> Callable[[str], None]:
    """Prints a line, unless nobody reads what is printed any more."""

    def tell(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            say(line)

    return tell


def _open(url: str, say: Callable[[str], None]) -> None:
    if not webbrowser.open(url):
        say(f"no browser is found here: open {url} in yours")


class _Server(uvicorn.Server):
    """Says when it is there, and when it goes."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None], on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start, self._on_end = on_start, on_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, as uvicorn does."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends, as uvicorn does."""
        self._on_end()
        await super().shutdown(sockets)
