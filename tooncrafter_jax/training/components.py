"""The networks of a stage over one flat dict of parameters, as the training step computes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Shaped

from tooncrafter_jax.models.network import AnyNetwork, View
from tooncrafter_jax.training.lora import LoraConfig
from tooncrafter_jax.training.sharding import gathering_view
from tooncrafter_jax.typing import Dtype, Leaf, Params
from tooncrafter_jax.weights.lora import PREFIX, merge

FlatParams = Params
"""Path that starts with the component ("unet.conv_in.kernel") -> array: the parameters of several networks in one
dict.
"""


class Components:
    """Some components of a model, and what the layers of a training step see of their parameters.

    Attributes:
      networks: component -> network.
      mesh: the device mesh; None for one device.
    """

    def __init__(
        self,
        networks: Mapping[str, AnyNetwork],
        mesh: Mesh | None = None,
        lora: LoraConfig | None = None,
        gradient_dtype: Dtype = jnp.float32,
    ) -> None:
        self.networks, self.mesh, self._lora = dict(networks), mesh, lora
        self._gradient_dtype = gradient_dtype

    @property
    def abstract_params(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every parameter of every component."""
        return {
            f"{name}.{path}": leaf
            for name, network in self.networks.items()
            for path, leaf in network.abstract_params.items()
        }

    def bind(self, component: str, params: FlatParams) -> Any:
        """The component's module; its layers see gathered parameters, with low-rank factors merged in."""
        network = self.networks[component]
        own = {path: params[f"{component}.{path}"] for path in network.abstract_params}
        return network.bind(own, self._view(component, params))

    def _view(self, component: str, params: FlatParams) -> View | None:
        gather = None
        if self.mesh is not None:
            gather = gathering_view(component, self.mesh, self.networks[component].dtype, self._gradient_dtype)
        if self._lora is None or not self._lora.rank:
            return gather
        scale, is_exact = self._lora.scale, jnp.dtype(self._gradient_dtype) == jnp.float32

        def view(name: str, value: jax.Array) -> jax.Array:
            path = f"{component}.{name}"
            value = value if gather is None else gather(name, value)
            if is_exact and f"{PREFIX}{path}.a" in params:
                # What the layer sees decides in which dtype its gradient is summed, which becomes that of the factors.
                value = value.astype(jnp.float32)
            return merge(path, value, params, scale)

        return view


def of_component(params: Mapping[str, Leaf], component: str) -> dict[str, Leaf]:
    """The parameters of one component by their paths within it."""
    return {path[len(component) + 1 :]: value for path, value in params.items() if path.startswith(component + ".")}


def split(params: Mapping[str, Leaf], is_trained: Callable[[str], bool]) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
    """(trained, frozen) parameters."""
    trained = {path: value for path, value in params.items() if is_trained(path)}
    return trained, {path: value for path, value in params.items() if path not in trained}


def as_float32(x: Shaped[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """For losses, which are computed in float32 whatever the networks compute in."""
    return x.astype(jnp.float32)
