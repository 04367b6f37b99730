"""A network as a pure function of a flat dict of parameters.

Modules are NNX, but what crosses `jax.jit` is a plain dict from dotted path
("down.0.blocks.1.spatial_res.conv_in.kernel") to array: cheap to dispatch, easy to shard, mask, save and print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PRNGKeyArray

from tooncrafter_jax.nn.attention import Attends, Backend
from tooncrafter_jax.nn.layers import Drawn, HostKey, count_parameters
from tooncrafter_jax.typing import AnyArray, Dtype, HostArray, Params

Module = TypeVar("Module", bound=nnx.Module, covariant=True)
View = Callable[[str, AnyArray], AnyArray]
"""(dotted path, stored parameter) -> what a layer computes with."""


class _ConstantRngs(nnx.Rngs):
    """Hands out one key for ever: `nnx.Rngs` makes abstract construction quadratic in the number of parameters."""

    def __init__(self, key: PRNGKeyArray) -> None:
        self._key = key

    def params(self) -> PRNGKeyArray:
        return self._key


class _HostRngs(nnx.Rngs):
    """Hands out one `HostKey`, for initialisers that draw on the host."""

    def __init__(self) -> None:
        self.key = HostKey()

    def params(self) -> HostKey:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.key


_Skeleton = tuple[nnx.GraphDef, list[tuple[tuple[object, ...], nnx.Variable]]]
"""The graph definition, and for each parameter its path and an abstract variable."""


def _build(
    module: Callable[..., Module], config: object, dtype: Dtype, param_dtype: Dtype, attention: Backend, rngs: nnx.Rngs
) -> Module:
    built = module(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
    for _, layer in nnx.iter_modules(built):
        if isinstance(layer, Attends):
            layer.attention_backend = attention
    return built


@lru_cache(maxsize=64)  # a command makes the same networks several times, and the published one takes seconds
def _skeleton(
    module: Callable[..., nnx.Module], config: object, dtype: Dtype, param_dtype: Dtype, attention: Backend
) -> _Skeleton:
    abstract = nnx.eval_shape(
        lambda: _build(module, config, dtype, param_dtype, attention, _ConstantRngs(jax.random.key(0)))
    )
    graphdef, state = nnx.split(abstract)
    return graphdef, list(nnx.to_flat_state(state))


class Network(Generic[Module]):
    """Binds an NNX module class and its config to flat parameters.

    Args:
      module: the module class; called as `module(config, rngs=..., dtype=..., param_dtype=...)`.
      config: its frozen config.
      dtype: dtype of the computation.
      param_dtype: dtype in which parameters are initialised.
      attention: back end that its attention layers prefer; see `nn.attention`.
    """

    def __init__(
        self,
        module: Callable[..., Module],
        config: Any,
        *,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        attention: Backend = "auto",
    ) -> None:
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.param_dtype = jnp.dtype(param_dtype)
        self.attention: Backend = attention
        self.module = module

    def _build(self, rngs: nnx.Rngs) -> Module:
        return _build(self.module, self.config, self.dtype, self.param_dtype, self.attention, rngs)

    @cached_property
    def _skeleton(self) -> _Skeleton:
        return _skeleton(self.module, self.config, self.dtype, self.param_dtype, self.attention)

    @cached_property
    def abstract_params(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every parameter."""
        return {
            ".".join(map(str, path)): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in self._skeleton[1]
        }

    @property
    def parameter_count(self) -> int:
        """How many numbers the network has."""
        return count_parameters(self.abstract_params)

    def drawn(self, seed: int) -> Iterator[tuple[str, HostArray]]:
        """Freshly initialised parameters by path, as numpy arrays: nothing is compiled, and all machines draw the same.

        They come one after another, so that only one need be in memory; zeros and ones come last.
        """
        rngs, path_of, constants = _HostRngs(), {}, {}
        _, state = nnx.split(self._build(rngs))
        for path, leaf in nnx.to_flat_state(state):
            name, value = ".".join(map(str, path)), leaf.get_raw_value()
            if isinstance(value, Drawn):
                path_of[int(value)] = name
            else:
                constants[name] = value
        generator = np.random.default_rng(seed)
        for number, draw in enumerate(rngs.key.draws):
            value = draw(generator)  # of a parameter that the module did away with, too: those after it depend on it
            if number in path_of:
                yield path_of[number], value
        yield from ((name, np.asarray(value)) for name, value in constants.items())

    def bind(self, params: Params, view: View | None = None) -> Module:
        """The module with these parameters; cheap enough to call while tracing, not in a loop.

        Args:
          params: dotted path -> array, or a `QuantisedKernel` for a kernel of `nn.layers`.
          view: what a layer sees of a parameter when it uses it, e.g. a gathered copy of a sharded one. Because it acts
            at the point of use, what it makes inside a checkpointed block is made again in the backward pass instead of
            kept.

        Raises:
          KeyError: if a parameter is missing.
        """
        graphdef, flat = self._skeleton
        leaves = []
        for path, leaf in flat:
            name = ".".join(map(str, path))
            hook = {} if view is None else {"on_get_value": _look(view, name)}
            leaves.append((path, leaf.replace(params[name], **hook)))
        return nnx.merge(graphdef, nnx.from_flat_state(leaves))


AnyNetwork = Network[Any]
"""A network of any module."""


def _look(view: View, name: str) -> Callable[[object, AnyArray], AnyArray]:
    return lambda _, value: view(name, value)
