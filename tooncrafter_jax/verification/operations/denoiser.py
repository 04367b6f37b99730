"""The denoising U-Net (outputs, statistics of its blocks, gradients) and the sketch encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.models.unet import UNetConfig
from tooncrafter_jax.verification.inputs import Inputs
from tooncrafter_jax.verification.layout import as_float32, channels_first, channels_last, frames_in_batch
from tooncrafter_jax.verification.model import Model

Results = dict[str, Any]
FIRST_VALUES = 6
"""How many values of a block's output its statistics end in."""


def official_blocks(config: UNetConfig) -> dict[str, str]:
    """Official name -> our name of every block whose output is observed, in the order in which they run."""
    levels, per_level = len(config.multipliers), config.blocks_per_level + 1
    names = {
        "time_embed": "time_embedding",
        "fps_embedding": "fps_embedding",
        "input_blocks.0": "conv_in",
        "init_attn": "stem_temporal_transformer",
    }
    for level in range(levels):
        for block in range(config.blocks_per_level):
            names[f"input_blocks.{1 + level * per_level + block}"] = f"down.{level}.blocks.{block}"
        if level < levels - 1:
            names[f"input_blocks.{(level + 1) * per_level}"] = f"down.{level}.downsample"
    names["middle_block"] = "mid"
    for index in range(levels * per_level):
        names[f"output_blocks.{index}"] = f"up.{levels - 1 - index // per_level}.blocks.{index % per_level}"
    return names


def _statistics(value: jax.Array) -> jax.Array:
    """Mean, unbiased standard deviation and the first values in PyTorch layout, of (B, D) or (B, T, H, W, C)."""
    value = value.astype(jnp.float32)
    first = value if value.ndim == 2 else jnp.moveaxis(value[0, 0], -1, 0)
    return jnp.concatenate([jnp.stack([value.mean(), value.std(ddof=1)]), first.reshape(-1)[:FIRST_VALUES]])


def run_unet(
    model: Model,
    x: jax.Array | np.ndarray,
    timesteps: jax.Array | np.ndarray,
    context: np.ndarray,
    fps: np.ndarray | None,
    controls: list[jax.Array] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The prediction (B, T, h, w, C), float32, and the statistics of every block by our names.

    Args:
      model: the model.
      x: (B, T, h, w, C) noisy latents and condition latents.
      timesteps: (B,) or (1,) times.
      context: (B, 77 + M, D).
      fps: (B,) or (1,) frame rates; None for the config's default.
      controls: outputs of the sketch encoder times the control scale.
    """
    network, batch = model.networks["unet"], x.shape[0]

    def run(params: Any, x: Any, timesteps: Any, context: Any, fps: Any, controls: Any) -> Any:
        unet, statistics = network.bind(params), {}

        def observe(name: str, value: jax.Array) -> None:
            statistics[name] = _statistics(value)

        keys = unet.context_keys(context, x.shape[1])
        out = unet(x, timesteps, keys, fps, controls=controls, observe=observe)
        return out.astype(jnp.float32), statistics

    if fps is None:
        fps = np.asarray(model.config.unet.default_fps)
    rates, times = _each(fps, batch), _each(timesteps, batch)
    params = model.params("unet")["unet"]
    return model.jit("unet", run)(params, jnp.asarray(x), times, context, rates, controls)


def _each(value: Any, batch: int) -> jax.Array:
    """A number, (1,) or (B,) as (B,) int32."""
    return jnp.broadcast_to(jnp.asarray(value, jnp.int32).reshape(-1), (batch,))


def _unet_inputs(inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    fps = inputs.array("fs") if inputs.has("fs") else None
    return channels_last(inputs.array("x")), inputs.array("timesteps"), inputs.array("context"), fps


def unet(model: Model, inputs: Inputs) -> Results:
    """`out` (B, C, T, h, w)."""
    out, _ = run_unet(model, *_unet_inputs(inputs))
    return {"out": channels_first(out)}


def unet_block_stats(model: Model, inputs: Inputs) -> Results:
    """`stats` (blocks, 8): mean, standard deviation and first six values of each block's output; `block_names`."""
    _, statistics = run_unet(model, *_unet_inputs(inputs))
    names = official_blocks(model.config.unet)
    return {"stats": np.stack([as_float32(statistics[ours]) for ours in names.values()]), "block_names": list(names)}


def unet_gradient(model: Model, inputs: Inputs) -> Results:
    """Gradients of sum(out · cotangent): `x`, `context` and each parameter by its official name and in its layout."""
    x, timesteps, context, fps = _unet_inputs(inputs)
    names = [str(name) for name in inputs.value("parameters")] if inputs.has("parameters") else []
    paths = {name: model.our_path("unet", name) for name in names}
    network = model.networks["unet"]

    def objective(
        chosen: Mapping[str, Any], x: Any, context: Any, others: Any, timesteps: Any, fps: Any, cotangent: Any
    ) -> jax.Array:
        unet = network.bind({**others, **chosen})
        out = unet(x, timesteps, unet.context_keys(context, x.shape[1]), fps)
        return jnp.sum(out.astype(jnp.float32) * cotangent)

    batch = x.shape[0]
    params = model.params("unet")["unet"]
    chosen = {path: params[path] for path in paths.values()}
    others = {path: value for path, value in params.items() if path not in chosen}
    fps = np.asarray(model.config.unet.default_fps) if fps is None else fps
    gradient = model.jit("unet_gradient", jax.grad(objective, argnums=(0, 1, 2)))
    cotangent = channels_last(inputs.array("cotangent"))
    of_params, of_x, of_context = gradient(
        chosen, x, context, others, _each(timesteps, batch), _each(fps, batch), cotangent
    )
    results: Results = {"x": channels_first(of_x), "context": as_float32(of_context)}
    for name, path in paths.items():
        results[name] = model.to_official_layout(name, path, as_float32(of_params[path]))
    return results


def run_sketch_encoder(model: Model, inputs: Inputs) -> tuple[list[jax.Array], jax.Array]:
    """The residuals (B, T, h, w, C) before the control scale, and the features of the hints (B, T, h, w, C)."""
    network = model.networks["sketch_encoder"]

    def run(params: Any, x: Any, timesteps: Any, context: Any, hints: Any) -> Any:
        encoder = network.bind(params)
        features = encoder.hint_features(hints)
        return encoder(x, timesteps, encoder.context_keys(context), features), features

    x = channels_last(inputs.array("x"))
    hints = channels_last(inputs.array("hint")).reshape(1, x.shape[1], *inputs.array("hint").shape[2:], -1)
    params = model.params("sketch_encoder")["sketch_encoder"]
    times = _each(inputs.array("timesteps"), x.shape[0])
    return model.jit("sketch_encoder", run)(params, x, times, inputs.array("context"), hints)


def sketch_encoder(model: Model, inputs: Inputs) -> Results:
    """`control_i` (T, C, h, w), `control_std` (their number,) and `hint_features` (T, C, h, w)."""
    controls, features = run_sketch_encoder(model, inputs)
    results = {f"control_{i}": frames_in_batch(control) for i, control in enumerate(controls)}
    deviations = [as_float32(jnp.std(control.astype(jnp.float32), ddof=1)) for control in controls]
    return {**results, "control_std": np.stack(deviations), "hint_features": frames_in_batch(features)}


def unet_with_control(model: Model, inputs: Inputs) -> Results:
    """`out` (B, C, T, h, w) of the denoiser, with residuals of the sketch encoder unless the hint is null."""
    x, timesteps, context, fps = _unet_inputs(inputs)
    controls = None
    if inputs.has("hint"):
        scale = jnp.float32(inputs.setting("control_scale", 1.0))
        controls = [control * scale.astype(control.dtype) for control in run_sketch_encoder(model, inputs)[0]]
    x = np.concatenate([x, channels_last(inputs.array("concat"))], axis=-1)
    out, _ = run_unet(model, x, timesteps, context, fps, controls)
    return {"out": channels_first(out)}
