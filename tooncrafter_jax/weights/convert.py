"""From published weight files to a checkpoint directory, one component in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.typing import Dtype
from tooncrafter_jax.weights.checkpoint_directory import restore_abandoned, version_of
from tooncrafter_jax.weights.joining import JoinedSource
from tooncrafter_jax.weights.loading import MappedSource, map_source
from tooncrafter_jax.weights.relatives import adapted, is_relative, missing_towers, variant_of
from tooncrafter_jax.weights.sources import open_source
from tooncrafter_jax.weights.store import REQUIRED_COMPONENTS, Checkpoint, CheckpointWriter


@dataclass(frozen=True)
class Conversion:
    """What a conversion did with the tensors of its files.

    Attributes:
      consumed: tensors that became parameters.
      buffers: schedule buffers, checked and dropped.
      unused: tensors that are not needed, by their names in their files, with the reason.
      components: components written.
      kept: components taken over from the directory that was there before.
      missing: components without which the directory is no model yet.
    """

    consumed: int
    buffers: int
    unused: dict[str, str]
    components: tuple[str, ...]
    kept: tuple[str, ...]
    missing: tuple[str, ...] = ()


def convert(
    sources: Path | str | Sequence[Path | str],
    destination: Path,
    config: ModelConfig | None = None,
    *,
    dtype: Dtype = np.float32,
    overwrite: bool = False,
    on_component: Callable[[str, int], None] | None = None,
    variant: str | None = None,
) -> Conversion:
    """Converts weight files, which together make a model or a part of one.

    A part (a sketch encoder, a U-Net, a CLIP tower), converted into an existing checkpoint directory of the same
    architecture, is added to it (or replaces that component with `overwrite`); so is a whole model that the directory
    has nothing of. With `overwrite` a whole model replaces the directory.

    Args:
      sources: .safetensors or .ckpt, one or several; each gives the components that those before it lack.
      destination: the checkpoint directory.
      config: the architecture, but for what the files tell of theirs (`relatives`); without, that of the directory that
        a part is added to, else the published one.
      dtype: of the parameters written.
      overwrite: whether what is there already may be replaced.
      on_component: called with a component's name and how many tensors of the files it is made of before it is written.
      variant: one of `relatives.VARIANTS`, which tensors do not tell apart; by default what the files' names say.

    Raises:
      UserError: if a file is missing or damaged, does not fit, CLIP is missing, or the destination cannot be written.
    """
    files = [Path(file) for file in ([sources] if isinstance(sources, Path | str) else sources)]
    if not files:
        raise UserError("there is nothing to convert: name a file of weights")
    destination = Path(destination)
    restore_abandoned(destination)
    before = version_of(destination)
    joined = JoinedSource([open_source(file) for file in files])
    kind = variant_of(files, variant)
    old = _existing(destination, joined.givers, overwrite)
    if config is None:
        config = ModelConfig() if old is None else old.config
    config = old.config if old is not None and is_relative(old.config, config) else adapted(config, joined)
    mapped = map_source(joined, config)
    kept = () if old is None else _kept(old, config, mapped, overwrite)
    missing = [name for name in REQUIRED_COMPONENTS if name not in (*mapped.components, *kept)]
    if missing and set(mapped.components) >= ALWAYS_TOGETHER:
        raise UserError(missing_towers(files, missing, destination))
    provenance = {
        "converted_from": files[0].name if len(files) == 1 else [file.name for file in files],
        "components": list(mapped.components),
        "before": None if old is None else old.provenance,
    }
    tensors = {component: 0 for component in mapped.components}
    for name, (component, _) in mapped.assignment.entries.items():
        tensors[component] += len(joined.own_names(name))
    with CheckpointWriter(
        destination,
        config,
        provenance,
        overwrite=overwrite or old is not None,
        sampling={**({} if old is None else old.sampling), **kind.sampling},
        before=before,
    ) as writer:
        if old is not None:
            writer.copy(old.directory, kept)
        for component in mapped.components:
            if on_component is not None:
                on_component(component, tensors[component])
            writer.write(component, dict(mapped.iterate(component, dtype)))
    never_used = {own: why for name, why in mapped.assignment.unused.items() for own in joined.own_names(name)}
    return Conversion(
        consumed=sum(tensors.values()),
        buffers=len(mapped.assignment.buffers),
        unused=joined.unused | never_used,
        components=mapped.components,
        kept=kept,
        missing=tuple(missing),
    )


ALWAYS_TOGETHER = {"unet", "image_projector", "autoencoder", "decoder"}
"""Components that a file of a model holds; CLIP's towers are left out of some."""


def _existing(destination: Path, given: Container[str], overwrite: bool) -> Checkpoint | None:
    """The checkpoint that something is added to; None where there is none, or a whole model takes its place."""
    if not destination.exists():
        return None
    if not all(name in given for name in REQUIRED_COMPONENTS):
        return Checkpoint(destination)
    if overwrite:
        return None
    try:
        old = Checkpoint(destination)
    except UserError:  # the writer says what is there
        return None
    return None if any(name in given for name in old.components) else old


def _kept(old: Checkpoint, config: ModelConfig, mapped: MappedSource, overwrite: bool) -> tuple[str, ...]:
    """The components that stay of the checkpoint that something is added to."""
    if old.config != config:
        raise UserError(
            f"{old.directory} has another architecture ({old.config.name}) than {config.name}: choose another "
            "directory, or leave --architecture out"
        )
    clash = [name for name in mapped.components if name in old.components]
    if clash and not overwrite:
        raise UserError(f"{old.directory} holds {', '.join(clash)} already: add --overwrite to replace it")
    return tuple(name for name in old.components if name not in mapped.components)
