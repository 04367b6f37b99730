"""Whole samples through the stages that users run, with given noise, as the published programs make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.ddim import step_chunks
from tooncrafter_jax.diffusion.schedule import ddim_tables
from tooncrafter_jax.media.images import resize_tensor_like_app, sketch_to_hint
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.sampling import Conditions, Guidance, condition_latents, second_pass_frames
from tooncrafter_jax.verification.expressions import STEPS
from tooncrafter_jax.verification.inputs import Inputs
from tooncrafter_jax.verification.layout import as_float32, channels_first, channels_last
from tooncrafter_jax.verification.model import Model

Results = dict[str, Any]
APPLICATION_MAX_STEPS = 60
APPLICATION_RESCALE = 0.7
"""Fixed in the published applications (spec section 11.2)."""
WIDTH_OF_256_MODEL = 32
"""Latents this wide make the applications fall back to `uniform` spacing without rescale (spec section 6.4)."""
NO_IMAGE_SCALE = object()
"""Marks a case of two branches."""


@dataclass(frozen=True)
class Request:
    """One sample.

    Attributes:
      first, last: (1, H, W, 3) pictures at the model's size, in [-1, 1].
      clip_image: (1, H, W, 3) what the image tower sees, of any size.
      posterior_noise: (T, C, h, w); `initial_noise`: (B, C, T, h, w); `step_noise`: one such array a step.
      spacing, steps, eta: of the sampler.
      scale, rescale, image_scale: of the guidance; `image_scale` None for two branches.
      hints: (1, T, H, W, 1) sketches or None.
      control_scale: of the sketches.
      extra: results that are known before sampling.
    """

    first: np.ndarray
    last: np.ndarray
    clip_image: np.ndarray
    prompt: str
    fps: np.ndarray
    posterior_noise: np.ndarray
    initial_noise: np.ndarray
    step_noise: list[np.ndarray]
    spacing: Any
    steps: int
    eta: float
    scale: float
    rescale: float
    image_scale: float | None = None
    hints: np.ndarray | None = None
    control_scale: float = 1.0
    extra: Results = field(default_factory=dict)


def _noise(inputs: Inputs) -> dict[str, Any]:
    initial = inputs.array("x_T")
    return {
        "posterior_noise": inputs.array("posterior_noise"),
        "initial_noise": initial,
        "step_noise": [np.asarray(noise, np.float32).reshape(initial.shape) for noise in inputs.value("step_noise")],
    }


def inference(model: Model, inputs: Inputs) -> Results:
    """The command line, with two branches or, with the setting `scale_img`, three (spec section 6.4)."""
    first = channels_last(inputs.array("image_first"))
    image_scale = inputs.setting("scale_img", NO_IMAGE_SCALE)
    scale = inputs.setting("scale")
    if image_scale is NO_IMAGE_SCALE:
        image_scale = None
    elif image_scale is None:  # the published default
        image_scale = scale
    request = Request(
        first=first,
        last=channels_last(inputs.array("image_last")),
        clip_image=first,
        prompt=inputs.text("prompt"),
        fps=inputs.array("fs"),
        spacing=inputs.setting("spacing"),
        steps=inputs.setting("steps"),
        eta=inputs.setting("eta"),
        scale=scale,
        rescale=inputs.setting("rescale", 0.0),
        image_scale=image_scale,
        **_noise(inputs),
    )
    return sample(model, request)


def application(model: Model, inputs: Inputs) -> Results:
    """The web applications: pictures of any size, and with the input `guides` sketches (spec sections 7 and 11.2)."""
    height, width = inputs.setting("height"), inputs.setting("width")
    originals = {end: channels_last(STEPS["image"](inputs.array(f"image_{end}"), True)) for end in ("first", "last")}
    resized = {end: resize_tensor_like_app(image[0], height, width)[None] for end, image in originals.items()}
    extra: Results = {}
    for end, image in originals.items():
        extra[f"resized_{end}"] = channels_first(resized[end])[0]
        without = resize_tensor_like_app(image[0], height, width, antialias=False)[None]
        extra[f"resized_{end}_without_antialias"] = channels_first(without)[0]
    hints = None
    if inputs.has("guides"):
        rgb = inputs.array("guides")[..., ::-1]
        hints = np.stack([sketch_to_hint(np.ascontiguousarray(frame), height, width) for frame in rgb])[None]
        extra["hint"] = channels_first(hints[0])
    noise = _noise(inputs)
    is_256_model = noise["initial_noise"].shape[-1] == WIDTH_OF_256_MODEL
    request = Request(
        first=resized["first"],
        last=resized["last"],
        clip_image=originals["first"],
        prompt=inputs.text("prompt"),
        fps=inputs.array("fs"),
        spacing="uniform" if is_256_model else "uniform_trailing",
        steps=min(inputs.setting("steps"), APPLICATION_MAX_STEPS),
        eta=inputs.setting("eta"),
        scale=inputs.setting("scale"),
        rescale=0.0 if is_256_model else APPLICATION_RESCALE,
        hints=hints,
        control_scale=inputs.setting("control_scale", 1.0),
        extra=extra,
        **noise,
    )
    return sample(model, request)


def sample(model: Model, request: Request) -> Results:
    """Encodes, conditions, denoises step by step and decodes twice.

    Returns:
      Everything that a manifest's pipelines store, in PyTorch layout.
    """
    sampler, schedule = model.sampler, model.schedule
    batch, frames = request.initial_noise.shape[0], request.initial_noise.shape[2]
    seeds = np.zeros((batch,), np.uint32)  # unused: all noise is given

    # The two pictures.
    ends = jnp.asarray(np.stack([request.first, request.last], axis=1))
    ends_noise = jnp.asarray(channels_last(request.posterior_noise[[0, -1]])[None])
    first_stage = model.params("autoencoder", "decoder")
    latents, references = sampler.encode(first_stage, ends, seeds, noise=ends_noise)

    # Context of every branch: with prompt and picture, (with picture,) without either.
    text = sampler.text(model.params("clip_text"), tokenizer()([request.prompt, ""]))
    pixels = sampler.clip_pixels(jnp.asarray(request.clip_image, jnp.float32))
    grey = sampler.clip_pixels(jnp.zeros_like(request.clip_image, jnp.float32))
    image = sampler.image_tokens(model.params("clip_image", "image_projector"), jnp.concatenate([pixels, grey]))
    rows = [(0, 0), (1, 0), (1, 1)] if request.image_scale is not None else [(0, 0), (1, 1)]
    if request.scale == 1.0:  # the published sampler then asks for no second prediction
        rows = rows[:1]
    context = jnp.concatenate([jnp.repeat(jnp.concatenate([text[t], image[i]])[None], batch, axis=0) for t, i in rows])
    sketch = None
    if request.hints is not None:
        scale = np.full((batch,), request.control_scale, np.float32)
        hints = jnp.asarray(request.hints)
        sketch = sampler.sketch_condition(model.params("sketch_encoder"), context, hints, scale)
    image_scale = 1.0 if request.image_scale is None else request.image_scale
    conditions = Conditions(
        concat=condition_latents(latents, frames),
        context=sampler.context_keys(model.params("unet"), context, frames=frames),
        fps=jnp.broadcast_to(jnp.asarray(request.fps, jnp.int32).reshape(-1), (batch,)),
        guidance=Guidance(request.scale, request.rescale, image_scale),
        sketch=sketch,
    )

    # Sampling, one step at a time.
    tables = ddim_tables(schedule, spacing=request.spacing, steps=request.steps, eta=request.eta)
    params = model.params("unet") if sketch is None else model.params("unet", "sketch_encoder")
    x = jnp.array(channels_last(request.initial_noise))
    after, predicted = [], []
    for steps, noise in zip(step_chunks(tables, 1), request.step_noise, strict=True):
        noise_of_step = jnp.asarray(channels_last(noise))[None]
        x, clean = sampler.denoise(
            params, x, steps, seeds, conditions, branches=len(rows), with_predictions=True, noise=noise_of_step
        )
        after.append(channels_first(x))
        predicted.append(channels_first(clean[0]))

    # Decoding, and the middle once more among other neighbours.
    video = _decode_in_windows(model, x, references)
    kept, replaced, found = second_pass_frames(frames)
    again = _decode_in_windows(model, x[:, np.asarray(kept)], references)
    final = video.copy()
    final[:, replaced] = again[:, found]
    return {
        **request.extra,
        "timesteps": tables.timesteps[::-1],
        "latents_after_step": np.stack(after),
        "pred_x0_after_step": np.stack(predicted),
        "frames": channels_first(final),
        "frames_before_replacement": channels_first(video),
        "frames_second_pass": channels_first(again),
        "text_context": as_float32(text[:1]),
        "image_context": as_float32(image[:1]),
        "condition_latents": channels_first(latents[0]),
    }


def _decode_in_windows(model: Model, latents: jax.Array, references: Any) -> np.ndarray:
    """Frames (B, T, H, W, 3), decoded in windows of the model's clip length by themselves (spec section 5.6)."""
    window = model.config.unet.temporal_length
    decode, params = model.sampler.decode, model.params("decoder")
    parts = [
        as_float32(decode(params, latents[:, start : start + window], references))
        for start in range(0, latents.shape[1], window)
    ]
    return np.concatenate(parts, axis=1)
