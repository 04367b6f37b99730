"""Plans the decoding of sampled clips."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tooncrafter_jax.models.tooncrafter import BoundModel, References
from tooncrafter_jax.nn.platform import tracing_for, without_cpu_forms
from tooncrafter_jax.planning.plan import Plan, bytes_of, compiled_plan, latent_shape
from tooncrafter_jax.planning.planned_sampler import placed, planned_sampler
from tooncrafter_jax.planning.topologies import Topology
from tooncrafter_jax.runtime.flops import Flops, forward_flops
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.typing import AllParams, JsonObject, Latents, Video


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
    sampler, how = planned_sampler(config, topology, pairs, "decoding", options)
    model, networks = sampler.config, sampler.networks
    ends = jax.ShapeDtypeStruct((pairs, 2, config.data.height, config.data.width, 3), jnp.float32)
    weights = {name: networks[name].abstract_params for name in ("autoencoder", "decoder")}
    _, references = jax.eval_shape(sampler.encode, weights, ends)
    latents = jax.ShapeDtypeStruct((pairs, *latent_shape(config, model)), jnp.float32)
    arguments = (
        placed({"decoder": weights["decoder"]}, sampler),
        placed(latents, sampler, "batch", "frames"),
        placed(references, sampler, "batch"),
    )

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
    params, *others = arguments
    held = {"parameters": bytes_of(params), "inputs": bytes_of(others)}
    return compiled_plan("decoding", topology, sampler.mesh, pairs, lowered, held, minimum)
