"""The models that a server draws with, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.nn.attention import Backend
from tooncrafter_jax.sampling.batch.model_source import DescribedModel, ModelSource
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.records import makers
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.sampling.residence import Memory
from tooncrafter_jax.serving.devices import ServedModel
from tooncrafter_jax.typing import HostVideos, JsonObject


class LoadedModel:
    """A model that is loaded when it first draws; see `ServedModel`.

    Args:
      name: what clients call it.
      source: where it comes from.
      dtype: of the computation.
      attention: its back end.
      memory: how much of a device's memory it takes.

    Raises:
      UserError: there is no such model.
    """

    def __init__(self, name: str, source: ModelSource, dtype: str, attention: Backend, memory: Memory = "high") -> None:
        self.name, self.dtype = name, dtype
        self._source = source
        self._attention: Backend = attention
        self._memory: Memory = memory
        self.described: DescribedModel = source.described()

    @cached_property
    def _toon(self) -> ToonCrafter:
        return self._source.load(self.dtype, self._attention, self._memory)

    def sample(
        self,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> HostVideos:
        """See `ToonCrafter.sample_prepared`."""
        return self._toon.sample_prepared(pairs, options, on_progress)

    @property
    def made_by(self) -> JsonObject:
        """What a record says of who drew; nothing before anything was drawn."""
        if "_toon" not in self.__dict__:
            return {}
        return makers(self._toon)

    def load(self) -> None:
        """Loads it now.

        Raises:
          UserError: it is damaged, or does not compute so.
        """
        _ = self._toon


def parse_models(values: Sequence[str]) -> dict[str, str]:
    """Models as the command line has them, "NAME=MODEL" or "MODEL": name -> model.

    Raises:
      UserError: two have one name, or a name is no word.
    """
    found: dict[str, str] = {}
    for value in values:
        given, separator, model = value.partition("=")
        name = given if separator else value.rstrip("/").rsplit("/", 1)[-1]
        if not name or not (model if separator else value):
            raise UserError(f"--model={printable(value)} is not of the form MODEL or NAME=MODEL")
        if name in found:
            raise UserError(f"two models are called '{printable(name)}': give one a name with --model=NAME=MODEL")
        found[name] = model if separator else value
    return found


def named(models: Mapping[str, ServedModel], name: str) -> ServedModel:
    """A model by its name; the first one where none is named.

    Raises:
      UserError: there is none of this name.
    """
    if not name:
        return next(iter(models.values()))
    if name not in models:
        raise UserError(f"this server has no model '{printable(name, 60)}': choose one of {', '.join(models)}")
    return models[name]
