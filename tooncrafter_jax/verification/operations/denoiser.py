"""The denoising U-Net (outputs, statistics of its blocks, gradients) and the sketch encoder."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Float32, Int

from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.unet import UNetConfig
from tooncrafter_jax.typing import (
    Context,
    FramesPerSecond,
    Hints,
    HostArray,
    Latents,
    Params,
    Timesteps,
    VideoFeatures,
)
from tooncrafter_jax.verification.inputs import Inputs, Results
from tooncrafter_jax.verification.layout import as_float32, channels_first, channels_last, frames_in_batch
from tooncrafter_jax.verification.model import VerifiedModel

HostLatents = Float[np.ndarray, "B T h w C"]
HostContext = Float[np.ndarray, "B N D"]
Rates = Int[np.ndarray, "rates"]
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


class Moments(NamedTuple):
    """What the statistics of a block are made of, for one clip.

    Attributes:
      size, mean, squares: how many values, their mean, and the sum of their squared deviations from it.
      first: the first values in PyTorch layout.
    """

    size: float
    mean: jax.Array
    squares: jax.Array
    first: jax.Array

    @classmethod
    def of(cls, value: Float[Array, "1 *rest"]) -> Moments:
        """Of (1, D) or (1, T, H, W, C)."""
        value = value.astype(jnp.float32)
        first = value if value.ndim == 2 else jnp.moveaxis(value[0, 0], -1, 0)
        return cls(float(value.size), value.mean(), value.var() * value.size, first.reshape(-1)[:FIRST_VALUES])


def _statistics(clips: list[Moments]) -> np.ndarray:
    """Mean, unbiased standard deviation and the first values of a batch of clips."""
    count, mean, squares = (np.asarray([clip[i] for clip in clips], np.float64) for i in range(3))
    whole = np.average(mean, weights=count)
    variance = (squares + count * (mean - whole) ** 2).sum() / (count.sum() - 1)
    return np.concatenate([[whole, np.sqrt(variance)], as_float32(clips[0].first)]).astype(np.float32)


def _no_controls(config: UNetConfig, x: jax.Array) -> list[jax.Array]:
    """Residuals of 0 for every skip and the middle, so that one compiled program serves with and without sketches."""
    _, frames, height, width, _ = x.shape
    widths = [config.width * multiplier for multiplier in config.multipliers]
    sizes = [(height, width, config.width)]
    for level, features in enumerate(widths):
        size = (height >> level, width >> level, features)
        sizes += [size] * config.blocks_per_level
        if level < len(widths) - 1:
            sizes.append((height >> (level + 1), width >> (level + 1), features))
    return [jnp.zeros((1, frames, *size)) for size in [*sizes, sizes[-1]]]


def run_unet(
    model: VerifiedModel,
    x: Latents | HostLatents,
    timesteps: Int[Array, "times"] | Int[np.ndarray, "times"],
    context: HostContext,
    fps: Rates | None,
    controls: list[VideoFeatures] | None = None,
    motion: Motion | None = None,
) -> tuple[Float32[Array, "B T h w _"], dict[str, Float32[np.ndarray, "values"]]]:
    """The prediction (B, T, h, w, C), float32, and the statistics of every block by our names.

    Clips are run one by one, so that one compiled program serves any batch; the pipelines run batches.

    Args:
      model: the model.
      x: (B, T, h, w, C) noisy latents and condition latents.
      timesteps: (B,) or (1,) times.
      context: (B, 77 + M, D).
      fps: (B,) or (1,) frame rates; None for the config's default.
      controls: outputs of the sketch encoder times the control scale.
      motion: guides the temporal transformers; in pixels.
    """
    network, batch = model.networks["unet"], x.shape[0]

    def run(
        params: Params,
        x: Latents,
        timesteps: Timesteps,
        context: Context,
        fps: FramesPerSecond,
        controls: list[VideoFeatures],
        motion: Motion | None,
    ) -> tuple[jax.Array, dict[str, Moments]]:
        unet, moments = network.bind(params), {}

        def observe(name: str, value: jax.Array) -> None:
            moments[name] = Moments.of(value)

        keys = unet.context_keys(context, x.shape[1])
        levels = at_levels(motion, unet.config, x)
        out = unet(x, timesteps, keys, fps, controls=controls, motion=levels, observe=observe)
        return out.astype(jnp.float32), moments

    compiled, params = model.jit("unet", run), model.params("unet")["unet"]
    rates = _each(np.asarray(model.config.unet.default_fps) if fps is None else fps, batch)
    times, x = _each(timesteps, batch), jnp.asarray(x)
    nothing = _no_controls(model.config.unet, x) if controls is None else []
    outs, moments = [], []
    for i in range(batch):
        row = slice(i, i + 1)
        residuals = nothing if controls is None else [control[row] for control in controls]
        moved = jax.tree.map(itemgetter(row), motion)
        out, of_blocks = compiled(params, x[row], times[row], context[row], rates[row], residuals, moved)
        outs.append(out)
        moments.append(of_blocks)
    return jnp.concatenate(outs), {name: _statistics([clip[name] for clip in moments]) for name in moments[0]}


def at_levels(motion: Motion | None, config: UNetConfig, x: Latents) -> tuple[Motion, ...] | None:
    """The motion at each level's size for latents like `x`; None without."""
    return None if motion is None else motion.at_levels(x.shape[2], x.shape[3], len(config.multipliers))


def _each(value: ArrayLike, batch: int) -> jax.Array:
    """A number, (1,) or (B,) as (B,) int32."""
    return jnp.broadcast_to(jnp.asarray(value, jnp.int32).reshape(-1), (batch,))


def unet_inputs(inputs: Inputs) -> tuple[HostLatents, Int[np.ndarray, "times"], HostContext, Rates | None]:
    """Latents (B, T, h, w, C), times, context and frame rates of a case."""
    fps = inputs.array("fs") if inputs.has("fs") else None
    return channels_last(inputs.array("x")), inputs.array("timesteps"), inputs.array("context"), fps


def unet(model: VerifiedModel, inputs: Inputs, motion: Motion | None = None) -> Results:
    """`out` (B, C, T, h, w)."""
    out, _ = run_unet(model, *unet_inputs(inputs), motion=motion)
    return {"out": channels_first(out)}


def unet_block_stats(model: VerifiedModel, inputs: Inputs, motion: Motion | None = None) -> Results:
    """`stats` (blocks, 8): mean, standard deviation and first six values of each block's output; `block_names`."""
    _, statistics = run_unet(model, *unet_inputs(inputs), motion=motion)
    names = official_blocks(model.config.unet)
    return {"stats": np.stack([statistics[ours] for ours in names.values()]), "block_names": list(names)}


def unet_gradient(model: VerifiedModel, inputs: Inputs, motion: Motion | None = None) -> Results:
    """Gradients of sum(out · cotangent): `x`, `context` and each parameter by its official name and in its layout."""
    x, timesteps, context, fps = unet_inputs(inputs)
    names = [str(name) for name in inputs.value("parameters")] if inputs.has("parameters") else []
    paths = {name: model.our_path("unet", name) for name in names}
    network = model.networks["unet"]

    def objective(
        chosen: Params,
        x: Latents,
        context: Context,
        others: Params,
        timesteps: Timesteps,
        fps: FramesPerSecond,
        motion: Motion | None,
        cotangent: jax.Array,
    ) -> jax.Array:
        unet = network.bind({**others, **chosen})
        keys = unet.context_keys(context, x.shape[1])
        out = unet(x, timesteps, keys, fps, motion=at_levels(motion, unet.config, x))
        return jnp.sum(out.astype(jnp.float32) * cotangent)

    batch = x.shape[0]
    params = model.params("unet")["unet"]
    chosen = {path: params[path] for path in paths.values()}
    others = {path: value for path, value in params.items() if path not in chosen}
    fps = np.asarray(model.config.unet.default_fps) if fps is None else fps
    gradient = model.jit("unet_gradient", jax.grad(objective, argnums=(0, 1, 2)))
    cotangent = channels_last(inputs.array("cotangent"))
    of_params, of_x, of_context = gradient(
        chosen, x, context, others, _each(timesteps, batch), _each(fps, batch), motion, cotangent
    )
    results: dict[str, HostArray] = {"x": channels_first(of_x), "context": as_float32(of_context)}
    for name, path in paths.items():
        results[name] = model.to_official_layout(name, path, as_float32(of_params[path]))
    return results


def run_sketch_encoder(model: VerifiedModel, inputs: Inputs) -> tuple[list[VideoFeatures], VideoFeatures]:
    """The residuals (B, T, h, w, C) before the control scale, and the features of the hints (B, T, h, w, C)."""
    network = model.networks["sketch_encoder"]

    def run(
        params: Params, x: Latents, timesteps: Timesteps, context: Context, hints: Hints
    ) -> tuple[list[jax.Array], jax.Array]:
        encoder = network.bind(params)
        features = encoder.hint_features(hints)
        return encoder(x, timesteps, encoder.context_keys(context), features), features

    x = channels_last(inputs.array("x"))
    hints = channels_last(inputs.array("hint")).reshape(1, x.shape[1], *inputs.array("hint").shape[2:], -1)
    params = model.params("sketch_encoder")["sketch_encoder"]
    times = _each(inputs.array("timesteps"), x.shape[0])
    return model.jit("sketch_encoder", run)(params, x, times, inputs.array("context"), hints)


def sketch_encoder(model: VerifiedModel, inputs: Inputs) -> Results:
    """`control_i` (T, C, h, w), `control_std` (their number,) and `hint_features` (T, C, h, w)."""
    controls, features = run_sketch_encoder(model, inputs)
    results = {f"control_{i}": frames_in_batch(control) for i, control in enumerate(controls)}
    deviations = [as_float32(jnp.std(control.astype(jnp.float32), ddof=1)) for control in controls]
    return {**results, "control_std": np.stack(deviations), "hint_features": frames_in_batch(features)}


def unet_with_control(model: VerifiedModel, inputs: Inputs) -> Results:
    """`out` (B, C, T, h, w) of the denoiser, with residuals of the sketch encoder unless the hint is null."""
    x, timesteps, context, fps = unet_inputs(inputs)
    controls = None
    if inputs.has("hint"):
        scale = jnp.float32(inputs.setting("control_scale", 1.0))
        controls = [control * scale.astype(control.dtype) for control in run_sketch_encoder(model, inputs)[0]]
    x = np.concatenate([x, channels_last(inputs.array("concat"))], axis=-1)
    out, _ = run_unet(model, x, timesteps, context, fps, controls)
    return {"out": channels_first(out)}
