"""Plans the decoding of sampled clips."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.tooncrafter import BoundModel, References
from tooncrafter_jax.nn.platform import tracing_for, without_cpu_forms
from tooncrafter_jax.planning.plan import Plan, bytes_of, check_attention, compiled_plan, latent_shape
from tooncrafter_jax.planning.topologies import Topology, topology_devices
from tooncrafter_jax.runtime.flops import Flops, forward_flops
from tooncrafter_jax.sampling.request import make_options
from tooncrafter_jax.sampling.sampler import Sampler
from tooncrafter_jax.sampling.sampling_mesh import sampling_mesh
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.typing import AllParams, JsonObject, Latents, PyTree, Video


def plan_decoding(config: TrainConfig, topology: Topology, pairs: int, options: JsonObject | None = None) -> Plan:
    """Compiles the decoding of `pairs` clips for a topology, with the references of both pictures and without motion.

    Args:
      config: the architecture, and the size of a clip.
      topology: what to compile for.
      pairs: that are decoded together.
      options: how to decode, by the names of `SamplingOptions`.

    Raises:
      UserError: as `plan_training`, or there are no pairs, or no such option.
    """
    if pairs < 1:
        raise UserError(f"--decoding is {pairs}, but at least 1 pair must be decoded")
    check_attention(config, topology)
    model = architecture(config)
    size = {"frames": config.data.frames, "height": config.data.height, "width": config.data.width}
    how = make_options({**(options or {}), **size})
    how.check(model)
    devices = topology_devices(topology)
    mesh = sampling_mesh(devices, pairs, how.frames)
    whole = SingleDeviceSharding(devices[0]) if mesh is None else NamedSharding(mesh, PartitionSpec())
    networks = model.networks(config.dtype, config.dtype, config.attention)
    sampler = Sampler(model, networks, mesh)

    def placed(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), tree)

    ends = jax.ShapeDtypeStruct((pairs, 2, config.data.height, config.data.width, 3), jnp.float32)
    weights = {name: networks[name].abstract_params for name in ("autoencoder", "decoder")}
    _, references = jax.eval_shape(sampler.encode, weights, ends)
    params = placed({"decoder": weights["decoder"]})
    latents = placed(jax.ShapeDtypeStruct((pairs, *latent_shape(config, model)), jnp.float32))
    arguments = (params, latents, placed(references))

    def decoded(params: AllParams, latents: Latents, references: References | None) -> Video:
        return BoundModel(model, lambda name: networks[name].bind(params[name])).decode(latents, references)

    static = {
        "frames_per_chunk": None if sampler.shares_frames else how.decode_frames_per_chunk,
        "tile_size": how.decode_tile_size,
    }
    with tracing_for(topology.platform):
        lowered = sampler.decode.lower(*arguments, **static)
    with tracing_for("cpu"), without_cpu_forms():
        minimum = Flops(forward=forward_flops(decoded, *arguments))
    held = {"parameters": bytes_of(params), "inputs": bytes_of((latents, references))}
    return compiled_plan("decoding", topology, mesh, pairs, lowered, held, minimum)
