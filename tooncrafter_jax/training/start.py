"""What training starts from: a checkpoint directory, fresh weights, or a part of each."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass, replace
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from tooncrafter_jax.config_codec import from_dict, to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import any_path
from tooncrafter_jax.models.configuration import COMPONENTS, MOTION, ModelConfig, preset
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.models.rife import RifeConfig
from tooncrafter_jax.sampling.motion_source import FLOW, LINES, published_motion
from tooncrafter_jax.training import lora
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.sharding import parameter_spec, put_whole, tree_shardings
from tooncrafter_jax.training.stages import Stage
from tooncrafter_jax.training.stages.reconstruction import PERCEPTUAL
from tooncrafter_jax.training.stages.stage import Derived
from tooncrafter_jax.training.state import State, abstract_state, new_state, stored_dtype
from tooncrafter_jax.typing import AnyArray, DeviceParams, HasShape, HostArray, HostParams, JsonObject
from tooncrafter_jax.weights.hub import fetched_model
from tooncrafter_jax.weights.lora import PREFIX
from tooncrafter_jax.weights.store import Checkpoint, fingerprint
from tooncrafter_jax.zoo.hed.weights import PACKAGE_FILE_SHA256 as HED_FINGERPRINT
from tooncrafter_jax.zoo.metric_weights import RIFE_FINGERPRINT, load_lpips

_LPIPS = f"{PERCEPTUAL}."
_FLOW, _LINES = f"{MOTION}.{FLOW}", f"{MOTION}.{LINES}"
SMALL = 4096
"""Numbers of an array that is read in any case to tell whether a checkpoint is another."""


def architecture(config: TrainConfig) -> ModelConfig:
    """The architecture of a run: of its checkpoints or preset, with the config's changes.

    Of several checkpoints each tells the architecture of the components that those before it lack, and the first one
    the rest.

    Raises:
      UserError: there is no such checkpoint or preset, or a change names something unknown.
    """
    checkpoints = start_checkpoints(config)
    if not checkpoints:
        return changed(preset(config.model), config.model_changes)
    holders = component_holders(checkpoints)
    model = replace(checkpoints[0].config, **{name: getattr(holder.config, name) for name, holder in holders.items()})
    return changed(model, config.model_changes)


def start_checkpoints(config: TrainConfig) -> list[Checkpoint]:
    """The checkpoints of `config.start`, in its order; one whose own name has a comma is taken as it is.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it is a published model that cannot be fetched.
    """
    if not config.start:
        return []
    is_one = "," not in config.start or any_path(config.start).exists()
    names = [config.start] if is_one else config.start.split(",")
    return [Checkpoint(fetched_model(name.strip()) or any_path(name.strip())) for name in names]


def component_holders(checkpoints: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Component -> the first checkpoint that holds it."""
    return {name: checkpoint for checkpoint in reversed(checkpoints) for name in checkpoint.components}


def changed(model: ModelConfig, changes: JsonObject) -> ModelConfig:
    """An architecture with nested changes.

    Raises:
      UserError: a change names something unknown, or has the wrong type.
    """
    values = to_dict(model)

    def apply(target: dict[str, object], updates: JsonObject) -> None:
        for key, value in updates.items():
            inner = target.get(key)
            if isinstance(value, Mapping) and isinstance(inner, dict):
                apply(inner, value)
            else:
                target[key] = value

    apply(values, changes)
    result = from_dict(ModelConfig, values, "config.model_changes")
    result.check("config.model_changes")
    return result


class _Giver(NamedTuple):
    """A component of a checkpoint, and what it gives.

    Attributes:
      checkpoint: where it is.
      component: its name.
      network: as it is stored.
      gives: paths, within the component, of the parameters that are taken from it.
    """

    checkpoint: Checkpoint
    component: str
    network: AnyNetwork
    gives: frozenset[str]


Placed = TypeVar("Placed")
"""An array on the host or on the mesh."""


@runtime_checkable
class _Place(Protocol[Placed]):
    """Where parameters are loaded to, and in which dtype."""

    def restore(self, giver: _Giver, only: Set[str]) -> Mapping[str, Placed]:
        """Parameters of a checkpoint's component by their paths within it."""
        ...

    def put(self, path: str, value: AnyArray | HostArray) -> Placed:
        """What was made on the host."""
        ...

    def of_sources(self) -> _Place[Placed]:
        """Where parameters are loaded to that others are made of."""
        ...

    def make(self, derived: Mapping[str, Derived], sources: Mapping[str, Placed]) -> Mapping[str, Placed]:
        """Parameters by path that are made of others, which were loaded to `of_sources()`."""
        ...


class Start:
    """Where each parameter of a stage starts: in a checkpoint, derived from another, freshly drawn, or the published
    weights of LPIPS, RIFE and HED.

    Nothing is read before it is asked for, and only what is asked for.

    Attributes:
      checkpoints: those of `config.start`.

    Raises:
      UserError: a checkpoint lacks a component, is damaged, or is of another architecture.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.checkpoints = start_checkpoints(stage.config)
        state = abstract_state(stage)
        self._shapes: dict[str, jax.ShapeDtypeStruct] = {**state.trained, **state.frozen}
        self._givers = _givers(stage, self.checkpoints)
        given = {f"{giver.component}.{name}" for giver in self._givers for name in giver.gives}
        self._missing = {path for path in self._shapes if path not in given and not path.startswith((PREFIX, _LPIPS))}
        self._derived = stage.derive(self._missing)
        published = (_FLOW, _LINES) if stage.model.motion.flow == RifeConfig() else (_LINES,)
        self._motion = {path for path in self._missing if path.startswith(published)}

    def state(self, mesh: Mesh) -> State:
        """The state before the first step, on the mesh.

        Raises:
          UserError: a checkpoint is damaged; LPIPS' weights were not fetched.
        """
        stage = self._stage
        shardings = tree_shardings(abstract_state(stage), mesh)
        begin = jax.jit(lambda given: new_state(stage, given), donate_argnums=0, out_shardings=shardings)
        return begin(self.load(self._shapes, mesh))

    def load(self, paths: Iterable[str], mesh: Mesh) -> DeviceParams:
        """Parameters as training keeps them, each straight in its sharding and dtype; all processes ask for the same.

        Raises:
          UserError: see `state`.
        """
        stage = self._stage
        return self._load(set(paths), _OnMesh(mesh, self._shapes, lambda path: stored_dtype(stage, path)))

    def load_on_host(self, paths: Iterable[str]) -> HostParams:
        """Parameters exactly as the checkpoints hold them, in their dtypes, in the memory of this process alone.

        Raises:
          UserError: see `state`.
        """
        return self._load(set(paths), _OnHost())

    def check_published(self) -> None:
        """Checks that the weights of others are there, before anything large is read or computed.

        Raises:
          UserError: they were not fetched, or are damaged.
        """
        for _ in self._published(set(self._shapes)):
            pass

    def whole_giver(self, component: str) -> Checkpoint | None:
        """The checkpoint whose component is taken as it is; None where more than one gives a part, or it holds more."""
        givers = [giver for giver in self._givers if giver.component == component and giver.gives]
        own = sum(path.startswith(f"{component}.") for path in self._shapes)
        if len(givers) == 1 and own == len(givers[0].gives) == len(givers[0].network.abstract_params):
            return givers[0].checkpoint
        return None

    def fingerprints(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Component -> what stands for the values that its parameters among these paths start from; a copy counts as
        what it is a copy of.

        Raises:
          UserError: see `state`.
        """
        found: dict[str, list[str]] = {}
        paths = {self._stage.copies.get(path, path) for path in paths}
        for component in sorted({path.partition(".")[0] for path in paths} & set(COMPONENTS)):
            own = {path for path in paths if path.startswith(f"{component}.")}
            names = {path.partition(".")[2] for path in own}
            found[component] = [
                _identity(giver) for giver in self._givers if giver.component == component and giver.gives & names
            ]
            for prefix, of_published in ((_FLOW, RIFE_FINGERPRINT), (_LINES, HED_FINGERPRINT)):
                if any(path.startswith(prefix) for path in own & self._motion):
                    found[component].append(f"published: {of_published}")
            if own & (self._missing - self._motion):
                found[component].append(f"seed {self._stage.config.seed}: {self._first_draws(component)}")
        return found

    def _load(self, wanted: Set[str], place: _Place[Placed]) -> dict[str, Placed]:
        loaded: dict[str, Placed] = {}
        for giver in self._givers:
            names = {name for name in giver.gives if f"{giver.component}.{name}" in wanted}
            if names:
                restored = place.restore(giver, names)
                loaded |= {f"{giver.component}.{name}": value for name, value in restored.items()}
        loaded |= {path: place.put(path, value) for path, value in self._made(wanted)}
        others = {path: self._derived[path] for path in wanted - set(loaded)}
        if others:
            sources = {derived.source for derived in others.values() if derived.source}
            loaded |= place.make(others, self._load(sources, place.of_sources()))
        return loaded

    def _made(self, wanted: Set[str]) -> Iterator[tuple[str, AnyArray | HostArray]]:
        """What is made on the host of no other parameter, one after another."""
        stage = self._stage
        yield from self._published(wanted)
        if any(path.startswith(PREFIX) for path in wanted):
            shapes = stage.components.abstract_params
            factors = lora.init(stage.lora, shapes, stage.lora_targets, stage.config.seed)
            yield from ((path, value) for path, value in factors.items() if path in wanted)
        drawn = set[str]()
        for path in (self._missing - self._motion) & wanted:
            derived = self._derived.get(path)
            if derived is not None and derived.source is None:
                yield path, derived.make(None)
            elif derived is None or derived.source == path:
                drawn.add(path)
        for component in sorted({path.partition(".")[0] for path in drawn}):
            for name, value in stage.components.networks[component].drawn(stage.config.seed):
                path = f"{component}.{name}"
                if path in drawn:
                    yield path, self._derived[path].make(value) if path in self._derived else value

    def _published(self, wanted: Set[str]) -> Iterator[tuple[str, AnyArray | HostArray]]:
        """Weights of others: of LPIPS, and of RIFE and HED where no checkpoint gives motion."""
        if any(path.startswith(_LPIPS) for path in wanted):
            of_lpips = load_lpips(self._stage.options.perceptual_network).params.items()
            yield from ((f"{_LPIPS}{name}", value) for name, value in of_lpips if f"{_LPIPS}{name}" in wanted)
        if wanted_motion := self._motion & wanted:
            with_lines = any(path.startswith(_LINES) for path in wanted_motion)
            for name, value in published_motion(through_sketches=with_lines).items():
                if (path := f"{MOTION}.{name}") in wanted_motion:
                    yield path, value

    def _first_draws(self, component: str) -> str:
        """Stands for how a component is drawn."""
        whole = hashlib.sha256()
        drawn = self._stage.components.networks[component].drawn(self._stage.config.seed)
        for name, value in itertools.islice(drawn, 3):
            whole.update(f"{name} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes())
        return whole.hexdigest()[:16]


class _OnHost:
    """Numpy arrays as they are stored."""

    def restore(self, giver: _Giver, only: Set[str]) -> HostParams:
        return giver.checkpoint.restore_on_host(giver.component, giver.network, only=only)

    def put(self, path: str, value: AnyArray | HostArray) -> HostArray:
        return np.asarray(value)

    def of_sources(self) -> _OnHost:
        return self

    def make(self, derived: Mapping[str, Derived], sources: Mapping[str, HostArray]) -> HostParams:
        return {path: np.asarray(one.value(sources)) for path, one in derived.items()}


class _OnMesh:
    """Arrays in the shardings of training, in dtypes by path."""

    def __init__(self, mesh: Mesh, shapes: Mapping[str, HasShape], dtype: Callable[[str], np.dtype]) -> None:
        self._mesh, self._shapes, self._dtype = mesh, shapes, dtype

    def _sharding(self, path: str) -> NamedSharding:
        return NamedSharding(self._mesh, parameter_spec(path, self._shapes[path].shape, self._mesh))

    def restore(self, giver: _Giver, only: Set[str]) -> DeviceParams:
        path_of = {name: f"{giver.component}.{name}" for name in only}
        return giver.checkpoint.restore(
            giver.component,
            giver.network,
            only=only,
            sharding={name: self._sharding(path) for name, path in path_of.items()},
            dtype={name: self._dtype(path) for name, path in path_of.items()},
        )

    def put(self, path: str, value: AnyArray | HostArray) -> AnyArray:
        whole = np.asarray(value, self._dtype(path))
        return put_whole(whole, self._sharding(path))

    def of_sources(self) -> _OnMesh:
        return _OnMesh(self._mesh, self._shapes, lambda path: np.dtype(np.float32))

    def make(self, derived: Mapping[str, Derived], sources: Mapping[str, AnyArray]) -> DeviceParams:
        def made(sources: Mapping[str, AnyArray]) -> DeviceParams:
            return {path: one.value(sources).astype(self._dtype(path)) for path, one in derived.items()}

        return jax.jit(made, out_shardings={path: self._sharding(path) for path in derived})(dict(sources))


def _givers(stage: Stage, checkpoints: Sequence[Checkpoint]) -> list[_Giver]:
    """What each checkpoint gives; of a component that may be restored in part, later ones give what earlier ones
    lack.
    """
    found: list[_Giver] = []
    if not checkpoints:
        return found
    holders = component_holders(checkpoints)
    for name in (name for name in stage.uses if name in holders):
        network = stage.components.networks[name]
        wanted, taken = network.abstract_params, set[str]()
        for checkpoint in checkpoints if _is_flexible(name, stage) else [holders[name]]:
            if name not in checkpoint.components:
                continue
            stored_config = getattr(checkpoint.config, name)
            if not _is_flexible(name, stage):
                _check_same(stored_config, getattr(stage.model, name), name, checkpoint)
            stored = network if stored_config == network.config else Network(network.module, stored_config)
            shapes = stored.abstract_params
            fitting = {path for path in wanted if path in shapes and shapes[path].shape == wanted[path].shape}
            found.append(_Giver(checkpoint, name, stored, frozenset(fitting - taken)))
            taken |= fitting
    checkpoints[-1].require(name for name in stage.uses if name not in holders and name not in stage.fresh)
    return found


def _identity(giver: _Giver) -> str:
    """Stands for the values of a checkpoint's component; of an old checkpoint, which does not tell, for those of small
    arrays.
    """
    recorded = giver.checkpoint.weights.get(giver.component)
    if recorded:
        return recorded
    small = {name for name, leaf in giver.network.abstract_params.items() if leaf.size <= SMALL}
    return fingerprint(giver.checkpoint.restore_on_host(giver.component, giver.network, only=small))


def _is_flexible(name: str, stage: Stage) -> bool:
    """Whether a component need not have all parts in a checkpoint."""
    return name in ("decoder", MOTION) and name in stage.fresh


def _check_same(stored: object, wanted: object, name: str, checkpoint: Checkpoint) -> None:
    if not is_dataclass(stored) or stored == wanted:
        return
    differing = [f.name for f in fields(stored) if getattr(stored, f.name) != getattr(wanted, f.name)]
    ignorable = {"dropout"}
    if set(differing) - ignorable:
        raise UserError(
            f"{checkpoint.directory} has another {name} than the config asks for (they differ in "
            f"{', '.join(differing)}): choose another config.start, or leave config.model_changes.{name} out"
        )
