"""What the hub and the way to it can answer, as one sentence each."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
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


def open_client(endpoint: str) -> Any:
    """The client that huggingface_hub asks with, by way of the proxy that the environment names.

    Raises:
      UserError: there can be no such client.
    """
    from huggingface_hub.utils import get_session

    try:
        return get_session()
    except (ImportError, ValueError) as error:  # a proxy of a kind that it does not know, or has no package for
        raise UserError(
            f"{endpoint} cannot be asked by way of the proxy that the environment names ({_reason(error)}): correct "
            "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or unset them"
        ) from error
    except OSError as error:  # a file of certificates
        raise unreachable(error, endpoint) from error


@contextlib.contextmanager
def asking(name: HubName, endpoint: str, token: str) -> Iterator[None]:
    """Turns what a question to the hub can raise into a sentence.

    Args:
      name: what is asked for.
      endpoint: of whom.
      token: where the token comes from, see `token_origin`.
    """
    try:
        yield
    except http_errors() as error:
        raise refused(error, name, endpoint, token) from error
    except UnicodeEncodeError as error:
        raise _no_token(token) from error
    except (ValueError, TypeError, KeyError) as error:  # what came is no description of a file or a repository
        raise no_hub(name, endpoint) from error


def token_origin(given: bool) -> str:
    """Where the token comes from that is sent: the caller, the environment, or the file of those who are signed in."""
    if given:
        return "that was given"
    variables = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    return f"in {variables[0]}" if variables else "that 'hf auth login' has kept"


def _no_token(token: str) -> UserError:
    return UserError(
        f"the token {token} has characters that no token has: copy it again, without what stands around it"
    )


def offline(name: object) -> UserError:
    """The error for something that is not here while nothing may be asked for."""
    return UserError(
        f"{name} is not on this machine, and HF_HUB_OFFLINE or local_files_only forbids to fetch it: leave that "
        f"out, or run `tooncrafter fetch '{name}' DIR` on a machine with a network and bring DIR along"
    )


def unreachable(error: BaseException, endpoint: str) -> UserError:
    """The error for a hub that does not answer."""
    reason = _reason(error)
    if "Illegal header" in reason:  # which the reason would show
        return _no_token("that is sent")
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


def refused(error: Exception, name: HubName, endpoint: str, token: str) -> UserError:
    """The error for an answer of the hub that is none of the file.

    Args:
      error: `HfHubHTTPError`, or of the way to the hub.
      name: what was asked for.
      endpoint: where.
      token: where the token comes from, see `token_origin`.
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
        return UserError(f"{endpoint} does not know the token {token}: renew it, or remove it for public repositories")
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
