"""Keys of configs as earlier versions called them: one table, by which old config files and old runs are read.

When an option moves, its line comes here; when one goes, what it always is from then on.
"""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Mapping

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import JsonObject

OWN = "STAGE"
"""Stands for the run's own stage."""

MOVED = {
    "bypass_temporal": "rectify.bypass_temporal",
    "lora.rank": "rectify.lora.rank",
    "lora.alpha": "rectify.lora.alpha",
    "lora.targets": "rectify.lora.targets",
    "latent_noise": "decoder.latent_noise",
    "last_time_share": f"{OWN}.last_time_share",
    "adversarial.width": f"{OWN}.discriminator.width",
    "adversarial.start_step": f"{OWN}.discriminator.start_step",
    "adversarial.weight": f"{OWN}.discriminator.weight",
    "adversarial.optimizer.learning_rate": f"{OWN}.discriminator.learning_rate",
    "adversarial.perceptual_weight": f"{OWN}.perceptual_weight",
    "adversarial.perceptual_frames": f"{OWN}.perceptual_frames",
    "adversarial.kl_weight": "autoencoder.kl_weight",
}
"""Former path -> path; an option that the run's stage does not have goes: it did nothing there, but for `NO_LONGER`."""
NO_LONGER = {"bypass_temporal": ("base",), "last_time_share": ("base", "rectify")}
"""Former path -> stages that had it and have it no more."""

MOVED_TO_JOINT = {"sketch.extractor": "joint.extractor", "sketch.weights": "joint.weights"}
"""The same for what was the stage `decoder` with `denoised_latents`."""
DENOISED = "denoised_latents"

GONE = {
    "log_norms": None,
    "optimizer.momentum": 0.95,
    "adversarial.optimizer.name": "adam",
    "adversarial.optimizer.schedule": "constant",
    "adversarial.optimizer.warmup_steps": 0,
    "adversarial.optimizer.beta1": 0.5,
    "adversarial.optimizer.beta2": 0.9,
    "adversarial.optimizer.epsilon": 1e-8,
    "adversarial.optimizer.momentum": None,
    "adversarial.optimizer.weight_decay": 0.0,
    "adversarial.optimizer.clip_norm": 0.0,
    "adversarial.optimizer.group_rates": None,
}
"""Path of an option that is gone -> what it always is; None where it changed nothing of what is learnt."""


def translated(
    values: JsonObject, options: Mapping[str, type], *, is_saved: bool = False
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """A config's plain values with the keys of now, and the keys that are called otherwise now.

    Args:
      values: of any version.
      options: stage -> the dataclass of its options.
      is_saved: whether a run wrote them down; of an earlier version they hold all options of all stages.

    Raises:
      UserError: an option that is gone had another value than it always has now.
    """
    found = copy.deepcopy({key: value for key, value in values.items()})
    moved: list[tuple[str, str]] = []
    is_old = any(path.partition(".")[0] in found for path in (*MOVED, DENOISED)) or "log_norms" in found
    stage = str(found.get("stage", "rectify"))
    table = dict(MOVED)
    if _pop(found, DENOISED, False):
        if stage != "decoder":
            raise UserError(f"config.{DENOISED} is the stage 'joint' now, not '{stage}': set config.stage to it")
        found["stage"] = stage = "joint"
        moved.append((DENOISED, "stage='joint'"))
        table |= MOVED_TO_JOINT
    for before, after in table.items():
        value = _pop(found, before, dataclasses.MISSING)
        path = after.replace(OWN, stage, 1)
        if value is dataclasses.MISSING:
            continue
        if not _has(options, stage, path):
            if value and stage in NO_LONGER.get(before, ()):
                raise UserError(f"config.{before} is no option of the stage '{stage}' any more: leave it out")
            continue
        _put(found, path, value)
        moved.append((before, path))
    uses_discriminator = _has(options, stage, f"{stage}.discriminator")
    for path, always in GONE.items():
        value = _pop(found, path, always)
        if always is None or value == always or (path.startswith("adversarial") and not uses_discriminator):
            continue
        raise UserError(f"config.{path} is no option any more and always {always!r}, not {value!r}: leave it out")
    if is_old and is_saved:
        found = {key: value for key, value in found.items() if key not in options or key == stage}
        own = found.get(stage)
        if isinstance(own, dict):
            names = {one.name for one in dataclasses.fields(options[stage])}
            found[stage] = {key: value for key, value in own.items() if key in names}
    return found, moved


def advice(key: str, stage: str = OWN) -> str | None:
    """Where a key of earlier versions is now, in a sentence; None for any other key."""
    if key == DENOISED:
        return f"config.{key} is the stage 'joint' now"
    for path, always in GONE.items():
        if key == path:
            return f"config.{key} is no option any more{'' if always is None else f' and always {always!r}'}"
    places = [after.replace(OWN, stage) for before, after in MOVED.items() if f"{before}.".startswith(f"{key}.")]
    return f"config.{key} is {' and '.join(f'config.{place}' for place in places)} now" if places else None


def _has(options: Mapping[str, type], stage: str, path: str) -> bool:
    """Whether a path is an option of the run's stage."""
    name, _, rest = path.partition(".")
    kind: object = options.get(name)
    if name != stage or kind is None:
        return False
    for part in rest.split("."):
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if part not in hints:
            return False
        kind = hints[part]
    return True


def _pop(values: dict[str, object], path: str, default: object) -> object:
    """Takes the value of a path out, and what is empty then."""
    name, _, rest = path.partition(".")
    if not rest:
        return values.pop(name, default)
    inner = values.get(name)
    if not isinstance(inner, dict):
        return default
    value = _pop(inner, rest, default)
    if not inner:
        del values[name]
    return value


def _put(values: dict[str, object], path: str, value: object) -> None:
    name, _, rest = path.partition(".")
    if rest:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UserError(f"config.{name} must be a mapping, not {type(inner).__name__}")
        _put(inner, rest, value)
    else:
        values[name] = value
