"""The model that a folder of reference numbers is about: its components with their weights, made when needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import COMPONENTS, OPTIONAL_COMPONENTS
from tooncrafter_jax.models.dual_reference_decoder import Decoder
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.sampling.sampler import Sampler
from tooncrafter_jax.typing import DeviceParams, Dtype, HostArray
from tooncrafter_jax.verification.folder import Folder
from tooncrafter_jax.weights.loading import MappedSource, map_source
from tooncrafter_jax.weights.official import PREFIXES, SCHEDULE_BUFFERS, to_our_layout
from tooncrafter_jax.weights.rule import SKETCH_PREFIX, make
from tooncrafter_jax.weights.sources import SafetensorsSource

Result = TypeVar("Result")
UNUSED_FAMILIES = ("embedder.model.",)
"""Prefixes of tensors that no component has (spec section 3.3)."""
VIDEO_PARTS = (".time_stack.", ".mix_factor", ".attn_refinement.", ".time_mix_conv.")
"""What the dual-reference decoder has and the plain one has not."""


class FolderSource:
    """The tensors of a folder's key tables: from its .safetensors files if these hold them, else by the weight rule.

    Attributes:
      where: for messages.
      shapes: official name -> PyTorch shape, the sketch encoder's with its prefix.

    Raises:
      UserError: if a .safetensors file holds some tensors of a table, but not all, or with other shapes.
    """

    def __init__(self, folder: Folder) -> None:
        self.where = str(folder.path)
        model, sketch = folder.key_table("model") or {}, folder.key_table("sketch_encoder") or {}
        prefixed = {SKETCH_PREFIX + name.removeprefix(SKETCH_PREFIX): shape for name, shape in sketch.items()}
        self.shapes = {**model, **prefixed}
        self._stored: dict[str, tuple[SafetensorsSource, str]] = {}
        for path in sorted(folder.path.glob("*.safetensors")):
            source = SafetensorsSource(path)
            for name in source.shapes:
                known = next((n for n in (name, SKETCH_PREFIX + name) if n in self.shapes), None)
                if known is not None:
                    self._stored[known] = (source, name)
        for table in (model, prefixed):
            needed = {name for name in table if name not in SCHEDULE_BUFFERS}
            absent = sorted(needed - set(self._stored))
            if absent and len(absent) < len(needed):
                raise UserError(f"the .safetensors files of {self.where} lack {len(absent)} tensors, first {absent[0]}")
        for name, (source, stored) in self._stored.items():
            if tuple(source.shapes[stored]) != tuple(self.shapes[name]):
                raise UserError(
                    f"{name} of {source.where} is {source.shapes[stored]}, not {self.shapes[name]} as in the table"
                )

    def read(self, name: str) -> HostArray:
        """The tensor of this name."""
        if name in self._stored:
            source, stored = self._stored[name]
            return source.read(stored)
        return make(name, self.shapes[name])


class _Part:
    """Some tensors of a source."""

    def __init__(self, source: FolderSource, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.where, self.shapes, self.read = source.where, dict(shapes), source.read


class VerifiedModel:
    """Components, weights and compiled functions for the cases of a folder.

    Args:
      folder: the folder.
      dtype: dtype of the networks' computation.

    Attributes:
      config: the architecture.
      schedule: the noise schedule.
      networks: component -> network.
      sampler: the compiled stages that users' samples go through.

    Raises:
      UserError: if the config is not that of a ToonCrafter model, or the key table holds names that no component knows.
    """

    def __init__(self, folder: Folder, dtype: Dtype = jnp.float32) -> None:
        self.official_config = folder.official_config
        self.config = folder.config
        self.schedule = NoiseSchedule(self.config.schedule)
        self.networks = self.config.networks(dtype)
        self.sampler = Sampler(self.config, self.networks)
        self._dtype = dtype
        self._source = FolderSource(folder)
        self._mapped: dict[str, MappedSource] = {}
        self._params: dict[str, DeviceParams] = {}
        self._jitted: dict[str, Callable] = {}
        self._lock = threading.RLock()
        self._check_table()

    def params(self, *components: str) -> dict[str, DeviceParams]:
        """Component -> flat parameters in float32, of these components.

        Raises:
          UserError: if the key table does not fit the architecture.
        """
        with self._lock:
            for component in components:
                if component not in self._params:
                    self._params[component] = self._load(self.mapped(component), component)
        return {component: self._params[component] for component in components}

    @property
    def sampled_components(self) -> list[str]:
        """What a sample needs, with the sketch encoder if the key tables have it."""
        return [name for name in COMPONENTS if name not in OPTIONAL_COMPONENTS or self._named(name)]

    def jit(self, key: str, fn: Callable[..., Result]) -> Callable[..., Result]:
        """`jax.jit(fn)`, the same for every call with this key, so that cases of equal shapes share one compilation."""
        with self._lock:
            if key not in self._jitted:
                self._jitted[key] = jax.jit(fn)
            return self._jitted[key]

    @cached_property
    def plain_decoder(self) -> tuple[AnyNetwork, DeviceParams]:
        """The plain KL decoder, named as the dual-reference decoder without its video parts, and its parameters."""
        config = replace(self.config.decoder, temporal=False, references=False, post_quantization=True)
        network: AnyNetwork = Network(Decoder, config, dtype=self._dtype)
        named = self._named("decoder")
        shapes = {name: shape for name, shape in named.items() if not any(part in name for part in VIDEO_PARTS)}
        return network, self._load(self._assign("decoder", network, shapes), "decoder")

    def our_path(self, component: str, name: str) -> str:
        """Our path of an official tensor.

        Raises:
          UserError: if the component has no such tensor.
        """
        entries = self.mapped(component).assignment.entries
        if name not in entries:
            raise UserError(f"{self._source.where} asks for the tensor {name}, which the {component} does not have")
        return entries[name][1]

    def to_official_layout(self, name: str, path: str, value: HostArray) -> HostArray:
        """Our array of this path as the official tensor `name`; layouts only permute: a permuted numbering tells
        how.
        """
        shape = self._source.shapes[name]
        numbers = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
        result = np.empty(numbers.size, value.dtype)
        result[to_our_layout(path, numbers).reshape(-1)] = value.reshape(-1)
        return result.reshape(shape)

    # ---------------------------------------------------------------------------------------------------------- weights

    def _named(self, component: str) -> dict[str, tuple[int, ...]]:
        prefixes = PREFIXES.get(component, ())  # of the motion network there are no official names
        return {name: shape for name, shape in self._source.shapes.items() if name.startswith(prefixes)}

    def mapped(self, component: str) -> MappedSource:
        """The tensors of a component's weights, each with its place."""
        if component not in self._mapped:
            self._mapped[component] = self._assign(component, self.networks[component], self._named(component))
        return self._mapped[component]

    def _assign(self, component: str, network: AnyNetwork, shapes: Mapping[str, tuple[int, ...]]) -> MappedSource:
        if not shapes:
            raise UserError(f"{self._source.where} has a case for the {component}, but no key table with its tensors")
        return map_source(_Part(self._source, shapes), self.config, [component], {component: network})

    def _load(self, mapped: MappedSource, component: str) -> DeviceParams:
        return {path: jnp.asarray(value) for path, value in mapped.params(component).items()}

    def _check_table(self) -> None:
        """Every name belongs to a family, and the schedule buffers have the computed shapes."""
        known = (*(prefix for prefixes in PREFIXES.values() for prefix in prefixes), *UNUSED_FAMILIES)
        buffers = self.schedule.buffers()
        for name, shape in self._source.shapes.items():
            if name in SCHEDULE_BUFFERS:
                expected = buffers[name].shape if name in buffers else None
                if shape != expected:
                    raise UserError(
                        f"{self._source.where} lists {name} with the shape {shape}, but its config gives {expected}"
                    )
            elif not name.startswith(known):
                raise UserError(f"the key table of {self._source.where} holds {name}, which belongs to no component")
