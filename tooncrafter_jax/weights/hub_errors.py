"""What the hub and the way to it can answer, as one sentence each."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

from tooncrafter_jax.errors import UserError, missing_extra, printable
from tooncrafter_jax.weights.hub_names import HubName

_SIGNED_IN = "set HF_TOKEN to a token of an account that may read it, or run 'hf auth login'"


def import_hub() -> ModuleType:
    """The package huggingface_hub, which reads the environment (`HF_HOME`, `HF_ENDPOINT`, ...) when it is first loaded.

    Raises:
      UserError: it is not installed, or a variable holds what it cannot read.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise missing_extra("huggingface_hub", "hub", "fetching a published model") from error
    except ValueError as error:
        raise UserError(
            f"huggingface_hub cannot be loaded ({error}): check the environment variables that begin with HF_"
        ) from error
    return huggingface_hub


def http_errors() -> tuple[type[Exception], ...]:
    """What an answer of the hub, the way to it or its address can raise; versions of the package have other clients."""
    from huggingface_hub.errors import HfHubHTTPError

    client = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
    return client.HTTPError, client.InvalidURL, client.StreamError, OSError


def offline(name: object) -> UserError:
    """The error for something that is not here while nothing may be asked for."""
    return UserError(
        f"{name} is not on this machine, and HF_HUB_OFFLINE or local_files_only forbids to fetch it: leave that "
        f"out, or run `tooncrafter fetch '{name}' DIR` on a machine with a network and bring DIR along"
    )


def unreachable(error: BaseException, endpoint: str) -> UserError:
    """The error for a hub that does not answer."""
    reason = _reason(error)
    if type(error).__name__ in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError"):
        return UserError(f"'{endpoint}' is no address of a hub ({reason}): correct HF_ENDPOINT, or unset it")
    return UserError(
        f"there is no answer from {endpoint} ({reason}): check the network and its proxy (HTTPS_PROXY); what is on "
        "this machine already needs none"
    )


def no_hub(name: HubName, endpoint: str) -> UserError:
    """The error for an answer that no hub gives."""
    return UserError(
        f"{endpoint} does not answer as a hub does about {name}: check HF_ENDPOINT, and whether a proxy or a sign-in "
        "page stands in between"
    )


def refused(error: Exception, name: HubName, endpoint: str) -> UserError:
    """The error for an answer of the hub that is none of the file.

    Args:
      error: `HfHubHTTPError`, or of the way to the hub.
      name: what was asked for.
      endpoint: where.
    """
    response: Any = getattr(error, "response", None)
    if response is None:
        return unreachable(error, endpoint)
    code, status = response.headers.get("X-Error-Code", ""), response.status_code
    said = response.headers.get("X-Error-Message", "")
    repository = HubName(name.repository)
    if code == "RevisionNotFound":
        return UserError(f"{repository} has no revision '{name.revision}' at {endpoint}: check the name behind the @")
    if code == "EntryNotFound":
        at = HubName(name.repository, name.revision)
        return UserError(
            f"{at} has no file '{name.file}' at {endpoint}: see {endpoint}/{name.repository} for its files"
        )
    if code == "GatedRepo":
        return UserError(
            f"{repository} is gated: accept its conditions at {endpoint}/{name.repository}, then {_SIGNED_IN}"
        )
    if "Invalid credentials" in said or "Invalid username or password" in said:
        origin = "in HF_TOKEN" if os.environ.get("HF_TOKEN") else "that 'hf auth login' has kept"
        return UserError(f"{endpoint} does not know the token {origin}: renew it, or remove it for public repositories")
    if code == "RepoNotFound" or status in (401, 404):
        return UserError(
            f"there is no repository {repository} at {endpoint}, or it is private: check its name; if it is private, "
            f"{_SIGNED_IN}"
        )
    if status == 403:
        return UserError(f"{endpoint} does not give out {name} ({_said(said, status)}): {_SIGNED_IN}")
    if status == 429:
        return UserError(f"{endpoint} has had too many requests from here: wait a few minutes, then run the same again")
    return UserError(f"{endpoint} answered {_said(said, status)} for {name}: try again later")


def _said(message: str, status: int) -> str:
    return f"{status}, '{printable(message, 200)}'" if message else str(status)


def _reason(error: BaseException) -> str:
    return printable(" ".join(str(error).split()), 200) or type(error).__name__
