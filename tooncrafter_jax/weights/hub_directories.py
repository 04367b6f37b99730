"""Checkpoint directories in a repository of the hub, as `ToonCrafter.save_pretrained` and `tooncrafter compact` write
them: they need no conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import Dtype
from tooncrafter_jax.weights.checkpoint_directory import MODEL_FILE, component_file, is_checkpoint, is_of_checkpoint
from tooncrafter_jax.weights.hub_names import HubName
from tooncrafter_jax.weights.loading import in_dtype
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter


def directory_files(files: Iterable[str]) -> list[str]:
    """Those of a repository's files that are a checkpoint directory at its root, its description first; nothing if it
    has none.
    """
    parts = [file for file in files if is_of_checkpoint(file.partition("/")[0])]
    if MODEL_FILE not in parts or len(parts) == 1:
        return []
    return sorted(parts, key=lambda file: (file != MODEL_FILE, file))


def open_directory(description: Path, name: HubName) -> Checkpoint:
    """The checkpoint directory of a repository, all of which is here.

    Args:
      description: its `model.json`, beside which the rest lies.
      name: of the repository, for messages.

    Raises:
      UserError: it is damaged, or something is missing.
    """
    directory = description.parent
    if not is_checkpoint(directory):
        raise UserError(f"{name} has a {MODEL_FILE} that describes no model: name the file of weights behind a /")
    checkpoint = Checkpoint(directory)
    for component in checkpoint.components:
        if not component_file(directory, component).is_file() and not (directory / component).is_dir():
            raise UserError(
                f"{name} lacks {component}, which its {MODEL_FILE} names: upload all of the directory again"
            )
    return checkpoint


def take_over(
    source: Checkpoint,
    destination: Path,
    dtype: Dtype,
    *,
    overwrite: bool = False,
    on_component: Callable[[str, int], None] | None = None,
) -> None:
    """Writes a checkpoint directory once more.

    Args:
      source: the directory.
      destination: the copy.
      dtype: of its parameters; None: as they are.
      overwrite: whether a checkpoint directory that is there already is replaced.
      on_component: called with a component's name and its number of parameters before it is written.

    Raises:
      UserError: it is damaged, a value does not fit the dtype, or the destination cannot be written.
    """
    networks = source.config.networks()
    is_file = any(component_file(source.directory, name).is_file() for name in source.components)
    with CheckpointWriter(
        destination,
        source.config,
        source.provenance,
        overwrite=overwrite,
        safetensors=is_file,
        sampling=source.sampling,
    ) as writer:
        for name in source.components:
            if on_component is not None:
                on_component(name, len(networks[name].abstract_params))
            if dtype is None:
                writer.copy(source.directory, [name])
                continue
            params = source.restore_on_host(name, networks[name])
            where = str(source.directory)
            writer.write(name, {p: in_dtype(value, dtype, f"{name}.{p} of {where}") for p, value in params.items()})
