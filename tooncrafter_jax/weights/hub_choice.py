"""Which files of a repository a model is made of: the one that is named, the only one of weights, or all those of a
checkpoint directory.
"""

from __future__ import annotations

from collections.abc import Sequence

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.typing import JsonObject
from tooncrafter_jax.weights.hub_directories import directory_files
from tooncrafter_jax.weights.hub_download import Hub
from tooncrafter_jax.weights.hub_names import FORM, MAIN, WEIGHT_ENDINGS, HubName, is_weight_file
from tooncrafter_jax.weights.known_models import PublishedFile, published_file

_MOST_NAMED = 8
"""Files that a message names."""


def chosen_files(hub: Hub, name: HubName, before: Sequence[Sequence[JsonObject]]) -> list[PublishedFile]:
    """The files that a name stands for. Where the hub does not answer, those that were chosen before, or that are in
    its cache.

    Args:
      hub: is asked for the list of files, if none is named.
      name: of a repository or a file.
      before: what was written down of the files that earlier directories of this name were made of.

    Raises:
      UserError: none is named and there are several, or none; or there is no answer, and nothing is here.
    """
    if name.file is not None:
        if not is_weight_file(name.file):
            raise UserError(f"{name} is no file of weights, which end in {', '.join(WEIGHT_ENDINGS)}: name one")
        return [published_file(name)]
    asked = HubName(name.repository, name.revision or MAIN)
    try:
        files = hub.files(asked)
    except UserError:
        if not (files := _known_before(before, name.repository) or hub.cached_files(asked)):
            raise
    directory = directory_files(files)
    return [
        PublishedFile(name.repository, file, asked.revision or MAIN) for file in directory or _only(files, name, hub)
    ]


def _known_before(before: Sequence[Sequence[JsonObject]], repository: str) -> dict[str, int]:
    """Files of the repository, and sizes, that a directory was made of."""
    for record in before:
        files = {str(file.get("file")): 0 for file in record if file.get("repository") == repository}
        if files:
            return files
    return {}


def _only(files: dict[str, int], name: HubName, hub: Hub) -> list[str]:
    """The file of weights, if there is one."""
    weights = [file for file in files if is_weight_file(file)]
    if not weights:
        raise UserError(
            f"{name} holds no file of weights at {hub.endpoint} (.safetensors, .ckpt, ...): name another repository or "
            f"revision as {FORM}"
        )
    if len(weights) > 1:
        some = ", ".join(f"{printable(file)} ({files[file] / 1e9:.2f} GB)" for file in weights[:_MOST_NAMED])
        raise UserError(
            f"{name} holds {len(weights)} files of weights: name one of them, as in "
            f"{HubName(name.repository, name.revision, weights[0])}; there are {some}"
            + (", ..." if len(weights) > _MOST_NAMED else "")
        )
    return weights
