"""A node for ComfyUI that draws the frames between two pictures with a server, `tooncrafter app`.

This file stands alone: it belongs into ComfyUI's folder `custom_nodes`, where `tooncrafter app --write-comfyui-node`
puts it, and needs nothing but what ComfyUI has. Where the server needs a token, ComfyUI is started with the token in
the environment variable TOONCRAFTER_TOKEN.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import secrets
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

DEFAULT_SERVER = "http://127.0.0.1:8512"
TOKEN = "TOONCRAFTER_TOKEN"
"""The environment variable that has the server's token."""
POLL_SECONDS = 0.3
ANSWER_SECONDS = 120.0
"""That an answer may take to begin."""
PATIENCE_SECONDS = 600.0
"""In which a server that is busy, or does not answer while a clip is drawn, is asked again."""
LATER = (429, 503)
"""Statuses that ask to come again."""
OWN = 0
"""Of a number: the model's own is taken."""
_KEYS: dict[tuple[str, str], str] = {}
"""(server, token) -> the key that it gave us: one for as long as ComfyUI runs."""


class ServerError(RuntimeError):
    """What went wrong, in one sentence; ComfyUI shows it at the node."""


class Unreachable(ServerError):
    """The server is not there, or not now."""


class Refused(ServerError):
    """The server said no.

    Attributes:
      status: of its answer.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Server:
    """Asks a server.

    Args:
      url: such as "http://127.0.0.1:8512".
      interrupted: raises where the user wants no more.
    """

    def __init__(self, url: str, interrupted: Callable[[], None] = lambda: None) -> None:
        self._token = os.environ.get(TOKEN, "").strip()
        if (problem := url_problem(url) or key_problem(self._token)) is not None:
            raise ServerError(problem)
        self._url, self._parts, self._interrupted = url.rstrip("/"), urlsplit(url), interrupted

    def json(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        """Asks, and reads the JSON of the answer."""
        try:
            return json.loads(self.bytes(method, path, body, kind))
        except ValueError as error:
            raise ServerError(f"{self._url} is no server of tooncrafter-jax: check its address") from error

    def bytes(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        """Asks with our key; where the server knows it no longer, with a new one."""
        known = (self._url, self._token)
        if known not in _KEYS:
            _KEYS[known] = self._new_key()
        try:
            return self._asked(method, path, _KEYS[known], body, kind)
        except Refused as error:
            if error.status != 401:
                raise
        _KEYS[known] = self._new_key()
        return self._asked(method, path, _KEYS[known], body, kind)

    def _new_key(self) -> str:
        try:
            return json.loads(self._asked("POST", "/v1/session", self._token))["key"]
        except Refused as error:
            if error.status != 401:
                raise
            wrong = f"the one in {TOKEN} is not it" if self._token else f"start ComfyUI with it in {TOKEN}"
            raise Refused(f"{self._url} needs its token: {wrong}", 401) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{self._url} is no server of tooncrafter-jax: check its address") from error

    def _asked(self, method: str, path: str, key: str, body: bytes | None = None, kind: str = "") -> bytes:
        until = time.monotonic() + PATIENCE_SECONDS
        headers = {"Connection": "close"} | ({"Authorization": f"Bearer {key}"} if key else {})
        headers |= {"Content-Type": kind} if kind else {}
        while True:
            status, after, data = self._answer(method, path, body, headers)
            if status < 400:
                return data
            if status not in LATER or time.monotonic() + after > until:
                raise Refused(f"{self._url} refuses: {_detail(status, data)}", status)
            self.pause(after)

    def _answer(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, float, bytes]:
        """Status, seconds after which to come again, and the body."""
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(self._parts.netloc, timeout=ANSWER_SECONDS)  # whose form `url_problem` has looked at
        try:
            try:
                connection.request(method, self._parts.path.rstrip("/") + path, body, dict(headers))
            except (BrokenPipeError, ConnectionResetError):
                pass  # it answers before it has all
            answer = connection.getresponse()
            return answer.status, seconds_of(answer.headers.get("Retry-After")), answer.read()
        except (OSError, HTTPException, ValueError) as error:  # ValueError: of a name or path that cannot be sent
            reason = str(error) or type(error).__name__
            raise Unreachable(
                f"{self._url} cannot be reached ({reason}): start it with `tooncrafter app`, or check its address"
            ) from error
        finally:
            connection.close()

    def pause(self, seconds: float) -> None:
        """Waits; ends at once where the user wants no more."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._interrupted()
            time.sleep(min(left, POLL_SECONDS))

    def wait(self, id: str, progress: Callable[[int, int], None]) -> None:
        """Waits until a job is done; `progress` is told what is done of how much."""
        until, total = time.monotonic() + PATIENCE_SECONDS, 1
        while True:
            self._interrupted()
            try:
                job = self.json("GET", f"/v1/jobs/{id}")
                until = time.monotonic() + PATIENCE_SECONDS
            except Unreachable:  # it is started again, and then goes on
                if time.monotonic() > until:
                    raise
                self.pause(POLL_SECONDS)
                continue
            if job["state"] == "done":
                progress(total, total)
                return
            if job["progress"]["total"]:
                total = job["progress"]["total"]
                progress(job["progress"]["done"], total)
            if job["state"] not in ("waiting", "running"):
                raise ServerError(job["error"] or f"the clip was {job['state']}")
            self.pause(POLL_SECONDS)


class ToonCrafterInBetween:
    """The frames between two pictures."""

    CATEGORY = "animation/ToonCrafter"
    FUNCTION = "draw"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("frames", "transparency")
    DESCRIPTION = "Draws the frames between two pictures with a server of tooncrafter-jax (`tooncrafter app`)."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes, as ComfyUI asks for it."""

        def own(least: float, most: float, step: float = 1, kind: str = "INT", what: str = "") -> tuple[str, Any]:
            settings = {"default": OWN, "min": least, "max": most, "step": step}
            return kind, settings | {"tooltip": f"{what}; {OWN}: the model's own"}

        return {
            "required": {
                "first": ("IMAGE", {"tooltip": "the first frame; of several pictures, the first"}),
                "last": ("IMAGE", {"tooltip": "the last frame; of several pictures, the last"}),
                "prompt": ("STRING", {"default": "", "multiline": True, "tooltip": "what happens between them"}),
                "seed": (
                    "INT",
                    {"default": 123, "min": 0, "max": 2**32 - 1, "control_after_generate": True},
                ),
                "server": ("STRING", {"default": DEFAULT_SERVER, "tooltip": "that `tooncrafter app` listens on"}),
            },
            "optional": {
                "sketches": ("IMAGE", {"tooltip": "drawings that guide frames, see sketch_frames"}),
                "sketch_frames": (
                    "STRING",
                    {"default": "", "tooltip": 'the frame of each sketch, as "4, 9"; the first frame is 0'},
                ),
                "negative_prompt": ("STRING", {"default": "", "multiline": True}),
                "model": ("STRING", {"default": "", "tooltip": "a model of the server; empty: its first"}),
                "frames": own(0, 1000, what="frames of the clip, both pictures among them"),
                "width": own(0, 8192, 8, what="of the clip, in pixels"),
                "height": own(0, 8192, 8, what="of the clip, in pixels"),
                "steps": own(0, 1000, what="steps of the sampler"),
                "guidance_scale": own(0.0, 100.0, 0.1, "FLOAT", "how much the prompt counts"),
                "fps": own(0, 1000, what="rate that the model is told, 5 to 30: smaller means larger motion"),
                "options": (
                    "STRING",
                    {"default": "{}", "tooltip": 'further options of `tooncrafter sample`, as {"eta": 0.5}'},
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, server: Any = None, options: Any = None, sketch_frames: Any = None) -> bool | str:
        """True, or what is wrong with a text; None stands for one that another node will give."""
        try:
            if isinstance(server, str) and (problem := url_problem(server)) is not None:
                return problem
            if isinstance(options, str):
                options_of(options)
            if isinstance(sketch_frames, str):
                frames_of(sketch_frames)
        except ServerError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, server: Any = None, model: Any = "", **inputs: Any) -> Any:
        """The weights that would draw: the same inputs give the same clip for as long as these are the same."""
        try:
            found = Server(server or DEFAULT_SERVER).json("GET", "/v1/models")["models"]
            return json.dumps([one for one in found if one["name"] == model] or found[:1], sort_keys=True)
        except (ServerError, LookupError, TypeError):
            return float("nan")  # which is never the same: the node runs, and says what is wrong

    def draw(
        self,
        first: Any,
        last: Any,
        prompt: str = "",
        seed: int = 123,
        server: str = DEFAULT_SERVER,
        sketches: Any = None,
        sketch_frames: str = "",
        negative_prompt: str = "",
        model: str = "",
        fps: int = OWN,
        options: str = "{}",
        **numbers: float,
    ) -> tuple[Any, Any]:
        """Draws a clip.

        Args:
          first: (N, H, W, 3) in [0, 1], as ComfyUI has pictures.
          last: the same.
          prompt: what happens between them.
          seed: from 0 to 2**32 - 1.
          server: its URL.
          sketches: (M, H, W, 3), or None.
          sketch_frames: the frame of each.
          negative_prompt: what guidance leads away from.
          model: of the server; empty: its first.
          fps: that the model is told; `OWN`: the default.
          options: JSON.
          **numbers: options that have an input of their own.

        Returns:
          The frames (T, H, W, 3) in [0, 1], and how transparent they are (T, H, W), both float32.

        Raises:
          ServerError: the server cannot be reached, or refuses; one sentence.
        """
        import torch

        drawings, places = ([] if sketches is None else list(sketches)), frames_of(sketch_frames)
        if len(drawings) != len(places):
            raise ServerError(
                f"there are {len(drawings)} sketches, but {len(places)} frames in sketch_frames: give one for each"
            )
        pictures = {"first": png(first[0]), "last": png(last[-1])}
        pictures |= {f"sketch-{place}": png(drawing) for place, drawing in zip(places, drawings, strict=True)}
        given = {name: value for name, value in numbers.items() if value != OWN}
        request: dict[str, Any] = {
            "first": "first",
            "last": "last",
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "seed": seed,
            "sketches": {str(place): f"sketch-{place}" for place in places},
            "options": given | options_of(options),
        }
        request |= ({"model": model} if model else {}) | ({"fps": fps} if fps != OWN else {})
        frames = self._drawn(server, request, pictures)
        opacity = frames[..., 3] if frames.shape[-1] == 4 else np.ones(frames.shape[:3], np.float32)
        colours = np.ascontiguousarray(frames[..., :3])
        return torch.from_numpy(colours), torch.from_numpy(np.ascontiguousarray(1 - opacity))

    def _drawn(self, url: str, request: Mapping[str, Any], pictures: Mapping[str, bytes]) -> np.ndarray:
        server, progress = Server(url, _interruption()), _progress()
        id = server.json("POST", "/v1/jobs", *form(request, pictures))["id"]
        try:
            server.wait(id, progress)
            return frames_in(server.bytes("GET", f"/v1/jobs/{id}/result/png"))
        finally:
            try:
                server.bytes("DELETE", f"/v1/jobs/{id}")  # which cancels it, too
            except ServerError:
                pass


def url_problem(url: str) -> str | None:
    """What is wrong with a server's address; None if nothing is."""
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_password = "@" in parts.netloc
    except ValueError:
        is_server = has_password = False
    if has_password:
        return f"a server's URL has no user and no password: give one such as {DEFAULT_SERVER}"
    return None if is_server else f"'{url}' is no server: give a URL such as {DEFAULT_SERVER}"


def key_problem(key: str) -> str | None:
    """What is wrong with a key or a token; None if nothing is."""
    is_key = key.isascii() and key.isprintable() and " " not in key
    return None if is_key else "the token, or key, has characters that none has: copy it again, as one line"


def seconds_of(text: str | None) -> float:
    """When to come again, as `Retry-After` says, within a minute; 1 where it names a date or is missing."""
    try:
        return min(60.0, max(0.1, float(text or 1)))
    except ValueError:
        return 1.0


def options_of(text: str) -> dict[str, Any]:
    """The options in a text.

    Raises:
      ServerError: it is no JSON object.
    """
    try:
        options = json.loads(text or "{}")
    except ValueError as error:
        raise ServerError(f"the options are not JSON ({error}): write them as {{}}") from error
    if not isinstance(options, dict):
        raise ServerError('the options must be an object such as {"eta": 0.5}')
    return options


def frames_of(text: str) -> Sequence[int]:
    """The frame numbers in a text.

    Raises:
      ServerError: there is something else in it, or one twice.
    """
    words = text.replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() for word in words):
        raise ServerError(f'sketch_frames must be numbers of frames such as "4, 9", not "{text}"')
    frames = [int(word) for word in words]
    if len(set(frames)) < len(frames):
        raise ServerError(f'sketch_frames names a frame twice: "{text}"')
    return frames


def png(picture: Any) -> bytes:
    """A picture (H, W, C) in [0, 1] as a PNG file."""
    array = np.asarray(picture.detach().cpu().float() if hasattr(picture, "detach") else picture)
    buffer = io.BytesIO()
    Image.fromarray((array.clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def frames_in(archive: bytes) -> np.ndarray:
    """The frames in a zip archive of pictures, (T, H, W, C) float32 in [0, 1]."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        frames = [np.asarray(Image.open(files.open(name))) for name in sorted(files.namelist())]
    return np.stack(frames).astype(np.float32) / 255


def form(request: Mapping[str, Any], pictures: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A request and its pictures as the body of a form, and its content type."""
    boundary = secrets.token_hex(16)
    parts = [('name="request"', json.dumps(request).encode())]
    parts += [(f'name="{name}"; filename="{name}"', data) for name, data in pictures.items()]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _detail(status: int, data: bytes) -> str:
    try:
        return str(json.loads(data)["detail"])[:1000]
    except (ValueError, KeyError, TypeError):
        return f"status {status}"


def _interruption() -> Callable[[], None]:
    """What raises once the user has stopped ComfyUI."""
    try:
        return importlib.import_module("comfy.model_management").throw_exception_if_processing_interrupted
    except ImportError:
        return lambda: None


def _progress() -> Callable[[int, int], None]:
    """Shows in ComfyUI what is done of how much."""
    try:
        bar = importlib.import_module("comfy.utils").ProgressBar(1)
    except ImportError:
        return lambda done, total: None
    return bar.update_absolute


NODE_CLASS_MAPPINGS = {"ToonCrafterInBetween": ToonCrafterInBetween}
NODE_DISPLAY_NAME_MAPPINGS = {"ToonCrafterInBetween": "ToonCrafter In-Between"}
