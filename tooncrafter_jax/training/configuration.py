"""Configs of training runs as plain values: read from a config file or a run's directory, and written down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from ml_collections import ConfigDict

from tooncrafter_jax.config_codec import from_dict, to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import note
from tooncrafter_jax.training.former_keys import translated
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.stages.registry import STAGES
from tooncrafter_jax.typing import JsonObject

_OPTIONS = "options"


def train_config(values: JsonObject) -> TrainConfig:
    """The config of nested plain values, such as `ConfigDict.to_dict()` gives.

    Keys of earlier versions are taken for what they are called now, and a note says so.

    Raises:
      UserError: for an unknown key (naming the nearest right one), a value of the wrong type or out of range, or an
        option of another stage than the config's.
    """
    general, moved = translated(values, {name: stage.Options for name, stage in STAGES.items()})
    for before, after in moved:
        note(f"config.{before} is config.{after} now: taken as that")
    name = general.get("stage", TrainConfig.stage)
    if not isinstance(name, str) or name not in STAGES:
        raise UserError(f"config.stage must be one of {', '.join(STAGES)}, not {name!r}")
    sections = {key: general.pop(key) for key in STAGES if key in general}
    read = {key: from_dict(STAGES[key].Options, section, f"config.{key}") for key, section in sections.items()}
    for key, options in read.items():
        changed = next(_changes(to_dict(options), to_dict(STAGES[key].Options())), None)
        if key != name and changed:
            raise UserError(f"config.{key}.{changed} is set, but config.stage is '{name}', which has no such option")
    if _OPTIONS in general:
        raise UserError(f"config has no key '{_OPTIONS}'; those of a stage are in config.{name}")
    return from_dict(
        TrainConfig, {**general, _OPTIONS: read.get(name, STAGES[name].Options())}, "config", also=tuple(STAGES)
    )


def default_config() -> ConfigDict:
    """Every key with its default, for a config file to change: `config.steps = 1000`, and a stage's own as
    `config.STAGE.KEY`.
    """
    sections = {name: to_dict(stage.Options()) for name, stage in STAGES.items() if fields(stage.Options)}
    return ConfigDict({name: _with_tuples(value) for name, value in (_general(TrainConfig()) | sections).items()})


def config_values(config: TrainConfig) -> dict[str, object]:
    """A config as nested plain values, ready for JSON, with the options of its own stage alone; `train_config` reads
    them.
    """
    return _general(config) | {config.stage: to_dict(config.options or STAGES[config.stage].Options())}


def saved_values(values: JsonObject) -> dict[str, object]:
    """What `config_values` wrote, now or in an earlier version, as `config_values` would write it now.

    Keys that there were not yet have their defaults.
    """
    known = {name: stage.Options for name, stage in STAGES.items()}
    given, _ = translated(values, known, is_saved=True)
    name = str(given.get("stage", TrainConfig.stage))
    defaults = _general(TrainConfig()) | {name: to_dict(STAGES[name].Options())}
    return _completed(given, defaults)


def _general(config: TrainConfig) -> dict[str, object]:
    values = to_dict(config)
    del values[_OPTIONS]
    return values


def _completed(config: JsonObject, defaults: JsonObject) -> dict[str, object]:
    nested = {
        key: _completed(own, value)
        for key, value in defaults.items()
        if value and isinstance(value, dict) and isinstance(own := config.get(key), dict)
    }
    return {**defaults, **config, **nested}


def _changes(values: JsonObject, defaults: JsonObject) -> Iterator[str]:
    """Paths of the values that are not the defaults."""
    for key, value in values.items():
        default = defaults[key]
        if isinstance(value, dict) and isinstance(default, dict):
            yield from (f"{key}.{path}" for path in _changes(value, default))
        elif value != default:
            yield key


def _with_tuples(value: object) -> object:
    """Nested values with tuples for lists, which the command line cannot change."""
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
