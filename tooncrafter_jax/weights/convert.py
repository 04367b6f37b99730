"""From published weight files to a checkpoint directory, one component in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import COMPONENTS, OPTIONAL_COMPONENTS, ModelConfig
from tooncrafter_jax.typing import Dtype
from tooncrafter_jax.weights.loading import MappedSource, map_source
from tooncrafter_jax.weights.sources import open_source
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter


@dataclass(frozen=True)
class Conversion:
    """What a conversion did with the tensors of its file.

    Attributes:
      consumed: tensors that became parameters.
      buffers: schedule buffers, checked and dropped.
      unused: tensors that are not needed, with the reason.
      components: components written.
      kept: components taken over from the directory that was there before.
    """

    consumed: int
    buffers: int
    unused: dict[str, str]
    components: tuple[str, ...]
    kept: tuple[str, ...]


def convert(
    source: Path,
    destination: Path,
    config: ModelConfig,
    *,
    dtype: Dtype = np.float32,
    overwrite: bool = False,
    on_component: Callable[[str, int], None] | None = None,
) -> Conversion:
    """Converts a weight file.

    A sketch encoder's file or a U-Net's, converted into an existing checkpoint directory of the same architecture, is
    added to it (or replaces that component with `overwrite`).

    Args:
      source: .safetensors or .ckpt of the full model, the sketch encoder or the U-Net.
      destination: the checkpoint directory.
      config: the architecture.
      dtype: of the parameters written.
      overwrite: whether what is there already may be replaced.
      on_component: called with a component's name and its number of tensors before it is written.

    Raises:
      UserError: if the file is missing or damaged, does not fit, or the destination cannot be written.
    """
    mapped = map_source(open_source(Path(source)), config)
    old, kept = _existing(Path(destination), config, mapped, overwrite)
    provenance = {
        "converted_from": Path(source).name,
        "components": list(mapped.components),
        "before": None if old is None else old.provenance,
    }
    with CheckpointWriter(
        Path(destination),
        config,
        provenance,
        overwrite=overwrite or old is not None,
        sampling=None if old is None else old.sampling,
    ) as writer:
        if old is not None:
            writer.copy(old.directory, kept)
        for component in mapped.components:
            if on_component is not None:
                on_component(component, sum(owner == component for owner, _ in mapped.assignment.entries.values()))
            writer.write(component, dict(mapped.iterate(component, dtype)))
    return Conversion(
        consumed=len(mapped.assignment.entries),
        buffers=len(mapped.assignment.buffers),
        unused=mapped.assignment.unused,
        components=mapped.components,
        kept=kept,
    )


def _existing(
    destination: Path, config: ModelConfig, mapped: MappedSource, overwrite: bool
) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The checkpoint that a partial file is added to, and the components of it that stay."""
    complete = set(COMPONENTS) - set(OPTIONAL_COMPONENTS) <= set(mapped.components)
    if not destination.exists() or complete:
        return None, ()
    old = Checkpoint(destination)
    if old.config != config:
        raise UserError(f"{destination} has another architecture ({old.config.name}) than {config.name}")
    clash = [name for name in mapped.components if name in old.components]
    if clash and not overwrite:
        raise UserError(f"{destination} holds {', '.join(clash)} already: add --overwrite to replace it")
    return old, tuple(name for name in old.components if name not in mapped.components)
