"""Names of published weights: `OWNER/NAME[@REVISION][/FILE]`, a repository of the Hugging Face hub and a file in it.

- The repository is the first two parts.
- The revision, behind an @, is one part: a branch, a tag or a commit. `refs/pr/4` and the like, which are three, are
  known by their beginning; of any other branch with a slash in its name, write the slash as %2F.
- All that follows is the file, which may lie in folders.

So `owner/name@refs/pr/4/model.safetensors` is the file `model.safetensors` of the revision `refs/pr/4`. The address of
a page or a file at huggingface.co, and `hf://` in front of a name, say the same.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import GivenPath

WEIGHT_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Of files that hold weights."""
MAIN = "main"
"""The revision that is taken where none is named."""
FORM = "OWNER/NAME[@REVISION][/FILE]"
"""How a published model is named."""
_SCHEME = "hf://"
_SITES = ("huggingface.co", "www.huggingface.co", "hf.co")
_PAGES = ("resolve", "blob", "tree", "raw")
"""What stands between a repository and a revision in the address of a page."""
_OTHER_KINDS = ("datasets", "spaces", "buckets", "kernels")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = re.compile(r"(?![-.])[A-Za-z0-9._-]{1,96}(?<![-.])")


@dataclass(frozen=True)
class HubName:
    """A file of a repository, or the repository.

    Attributes:
      repository: as OWNER/NAME.
      revision: branch, tag or commit; None where it is not said.
      file: path in the repository; None where it is not said.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{_written(self.revision)}"
        return f"{self.repository}{revision}{'' if self.file is None else f'/{self.file}'}"


def is_explicit(text: str) -> bool:
    """Whether a text can be nothing else than the name of something on the hub."""
    return text.startswith(_SCHEME) or _site(text) is not None


def parse_name(text: str) -> HubName | None:
    """The repository and the file that a text names; None if it has not that form.

    Raises:
      UserError: it begins with hf:// or is an address of the hub, but names no model there.
    """
    if is_explicit(text):
        name = _of_address(text) if _site(text) is not None else _of_parts(text.removeprefix(_SCHEME))
        if name is None:
            raise UserError(f"'{text}' names no model on the hub: write {_SCHEME}{FORM}")
        return name
    name = _of_parts(text)
    if name is None or is_weight_file(name.repository):
        return None  # a file of this machine
    if name.revision is None and name.file is not None and not is_weight_file(name.file):
        return None  # a folder of this machine
    return name


def published_name(source: GivenPath) -> HubName | None:
    """What a model is called on the hub, if it is not to be found on this machine.

    A path that exists is a path, and so is one that only lacks its end: where there is a folder of the owner's name
    here, a name needs hf:// in front of it.

    Args:
      source: as the user gave it; a `Path` is of this machine.

    Raises:
      UserError: see `parse_name`.
    """
    if not isinstance(source, str):
        return None
    name = parse_name(source)
    if name is None or is_explicit(source):
        return name
    return None if os.path.exists(source) or os.path.exists(source.partition("/")[0]) else name


def with_revision(source: GivenPath, revision: str) -> str:
    """A published model's name with a revision of its repository.

    Raises:
      UserError: no published model is named, or one with another revision, or it is no revision.
    """
    name = published_name(source)
    if name is None:
        raise UserError(f"'{source}' is taken as a place of this machine, which has no revisions: leave revision out")
    if name.revision not in (None, revision):
        raise UserError(f"'{source}' names the revision {name.revision}, and {revision} is asked for: leave one out")
    if not is_plain_path(revision):
        raise UserError(f"{revision!r} is no branch, tag or commit: take it as the model's page shows it")
    return f"{_SCHEME}{replace(name, revision=revision)}"


def _of_parts(text: str) -> HubName | None:
    """A name of the form `FORM`."""
    before, at, after = text.partition("@")
    parts = before.split("/")
    if at and len(parts) != 2:
        return None
    repository, rest = parts[:2], parts[2:]
    revision = None
    if at:
        behind = after.split("/")
        length = 3 if behind[0] == "refs" else 1
        revision, rest = unquote("/".join(behind[:length])), behind[length:]
    return _checked("/".join(repository), revision, rest)


def _of_address(text: str) -> HubName | None:
    """The address of a page."""
    parts = [unquote(part) for part in urlsplit(text).path.strip("/").split("/")]
    if parts[0] == "models":
        parts = parts[1:]
    if parts[0] in _OTHER_KINDS or len(parts) < 2 or (len(parts) > 2 and parts[2] not in _PAGES):
        return None
    behind = parts[3:]
    length = 3 if behind[:1] == ["refs"] else 1
    return _checked("/".join(parts[:2]), "/".join(behind[:length]) or None, behind[length:])


def _checked(repository: str, revision: str | None, rest: list[str]) -> HubName | None:
    """The name, if every part of it can be one."""
    parts = repository.split("/")
    if len(parts) != 2 or not all(_PART.fullmatch(part) for part in parts) or parts[0] in _OTHER_KINDS:
        return None
    if "--" in repository or ".." in repository or repository.endswith(".git"):
        return None
    if revision is not None and not is_plain_path(revision):
        return None
    if rest and not is_plain_path("/".join(rest)):
        return None
    return HubName(repository, revision, str(PurePosixPath(*rest)) if rest else None)


def is_weight_file(name: str) -> bool:
    """Whether a name is that of a file of weights, in upper or lower case."""
    return name.lower().endswith(WEIGHT_ENDINGS)


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which stays what it is."""
    return _COMMIT.fullmatch(revision) is not None


def is_plain_path(text: str) -> bool:
    """Whether a text is a path in a repository that leads nowhere else and can be printed."""
    return all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in text.split("/"))


def _site(text: str) -> str | None:
    """The hub's host, if a text is an address there."""
    if not text.startswith(("https://", "http://")):
        return None
    try:
        host = urlsplit(text).hostname
    except ValueError:
        return None
    return host if host in _SITES else None


def _written(revision: str) -> str:
    """A revision as it stands in a name."""
    parts = revision.split("/")
    return revision if len(parts) == 3 and parts[0] == "refs" else quote(revision, safe="")
