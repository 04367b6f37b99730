"""Several weight files as one: each gives the components that those before it lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import note
from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.weights.loading import components_in
from tooncrafter_jax.weights.official import SCHEDULE_BUFFERS, component_of
from tooncrafter_jax.weights.sources import TensorSource
from tooncrafter_jax.weights.spellings import EMA_PREFIX, RespelledSource, respelled


class JoinedSource:
    """Weight files under the official names; of a component that several hold, the first one's.

    Args:
      files: in the order in which they were named.

    Attributes:
      where: the files, for messages.
      shapes: official name -> shape.
      unused: what no component needs, by its name in its file (behind the file's, of several), and why.
      givers: component -> the file that it is taken from.

    Raises:
      UserError: a file is of a model of another kind, or gives nothing.
    """

    def __init__(self, files: Sequence[TensorSource]) -> None:
        self._several = len(files) > 1
        self.where = _listed([file.where for file in files])
        self.givers: dict[str, str] = {}
        self.unused: dict[str, str] = {}
        self._places: dict[str, RespelledSource] = {}
        for file in files:
            self._add(respelled(file))
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: source.shapes[name] for name, source in self._places.items()
        }

    def read(self, name: str) -> HostArray:
        """The tensor of this official name, in its file's dtype."""
        return self._places[name].read(name)

    def own_names(self, name: str) -> tuple[str, ...]:
        """What a tensor is called in its file, behind the file's name if there are several files; a tensor may be
        several there.
        """
        source = self._places[name]
        return tuple(self._label(source, own) for own in source.names[name])

    def _label(self, source: RespelledSource, own: str) -> str:
        return f"{source.where}: {own}" if self._several else own

    def _add(self, source: RespelledSource) -> None:
        held = components_in(source)
        given = [component for component in held if component not in self.givers]
        if not given:
            raise UserError(
                f"{source.where} gives nothing that {_listed(list(dict.fromkeys(self.givers.values())))} does not: "
                "leave it out, or name it first"
            )
        for component in held:
            if component in self.givers:
                note(f"{component} is taken from {self.givers[component]}, and the one in {source.where} is not used")
        if any(name.startswith(EMA_PREFIX) for name in source.unused):
            note(
                f"{source.where} holds running means of its training beside its U-Net ({EMA_PREFIX}*), which are not "
                "used, as in the published code"
            )
        self.unused |= {self._label(source, own): reason for own, reason in source.unused.items()}
        for name in source.names:
            found = component_of(name)
            component = None if found is None else found[0]
            if component in self.givers and component not in given:
                reason = f"{component} is taken from {self.givers[component]}"
            elif name in SCHEDULE_BUFFERS and name in self._places:
                reason = f"the schedule is checked with that of {self._places[name].where}"
            elif name in self._places:
                reason = f"also in {self._places[name].where}"
            else:
                self._places[name] = source
                continue
            self.unused |= {self._label(source, own): reason for own in source.names[name]}
        self.givers |= dict.fromkeys(given, source.where)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
