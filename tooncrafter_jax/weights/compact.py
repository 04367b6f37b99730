"""A checkpoint directory written again as one safetensors file a component, to be handed on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostArray, JsonObject
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

DTYPES = ("float16", "float32")


def compact(
    whole: Checkpoint,
    destination: Path,
    *,
    dtype: str = DTYPES[0],
    taken: Mapping[str, Checkpoint],
    sampling: JsonObject,
    provenance: JsonObject,
    overwrite: bool = False,
) -> int:
    """Writes the directory, whole or not at all.

    Args:
      whole: what is written again.
      destination: the directory.
      dtype: one of `DTYPES`, of all parameters.
      taken: component -> the directory that it is taken from instead; one that `whole` has not is added.
      sampling: options of sampling that suit the model, beside those that it has.
      provenance: is added to what is recorded of the weights.
      overwrite: whether what the destination holds is replaced.

    Returns:
      Bytes of all parameters.

    Raises:
      UserError: the components do not fit together, a value does not fit the dtype, or the directory cannot be written.
    """
    config = dataclasses.replace(whole.config, **{name: getattr(other.config, name) for name, other in taken.items()})
    config.check("the components taken together")
    history: dict[str, object] = {**whole.provenance, **provenance, "dtype": dtype}
    if taken:
        history["taken"] = {name: dict(other.provenance) for name, other in taken.items()}
    size = 0
    with CheckpointWriter(
        destination,
        config,
        without_repeated_runs(history),
        overwrite=overwrite,
        safetensors=True,
        sampling={**whole.sampling, **sampling},
    ) as writer:
        networks = config.networks()
        for name in dict.fromkeys((*whole.components, *taken)):
            params = taken.get(name, whole).restore(name, networks[name])
            with np.errstate(over="ignore"):
                rounded = {path: np.asarray(value).astype(dtype) for path, value in params.items()}
            broken = [path for path, value in rounded.items() if not np.isfinite(value).all()]
            if broken:
                raise _no_numbers(f"{name}.{broken[0]}", np.asarray(params[broken[0]]), dtype)
            writer.write(name, rounded)
            size += sum(value.nbytes for value in rounded.values())
    return size


def _no_numbers(where: str, value: HostArray, dtype: str) -> UserError:
    """The error for parameters that are not finite in a dtype."""
    if np.isfinite(value.astype(np.float32)).all():
        return UserError(f"{where} has values that {dtype} does not hold: use --stored-dtype=float32")
    return UserError(f"{where} has values that are not finite: train or convert the model again")


def without_repeated_runs(provenance: JsonObject) -> JsonObject:
    """Provenance without repetition: components that are taken together have much of their history in common.

    Args:
      provenance: nested values.

    Returns:
      The same, but of a run that occurs again only its stage, its steps and that it stands above.
    """
    return cast(JsonObject, _without_repeated_runs(provenance, set()))


def _without_repeated_runs(values: object, seen: set[str]) -> object:
    if isinstance(values, list):
        return [_without_repeated_runs(item, seen) for item in values]
    if not isinstance(values, dict):
        return values
    config = values.get("config")
    if isinstance(config, dict) and "steps" in values:
        run = json.dumps(values, sort_keys=True)
        if run in seen:
            return {"stage": config.get("stage"), "steps": values["steps"], "told": "above"}
        seen.add(run)
    return {name: _without_repeated_runs(item, seen) for name, item in values.items()}
