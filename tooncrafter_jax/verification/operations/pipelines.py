"""Whole samples by the parts that users' samples go through, with given noise, as the published programs make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from tooncrafter_jax.diffusion.schedule import Spacing
from tooncrafter_jax.diffusion.solvers import DEFAULT_SOLVER, SolverOptions, solver_named
from tooncrafter_jax.io import resize_tensor_like_app, sketch_to_hint
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.sampling.denoise import Guidance
from tooncrafter_jax.sampling.sampler import branch_contexts, only
from tooncrafter_jax.sampling.second_pass import decode_twice
from tooncrafter_jax.typing import HostArray, Latents, Video
from tooncrafter_jax.verification.expressions import STEPS
from tooncrafter_jax.verification.inputs import Inputs, Results
from tooncrafter_jax.verification.layout import channels_first, channels_last
from tooncrafter_jax.verification.model import VerifiedModel
from tooncrafter_jax.verification.operations.motion import given_motion

APPLICATION_MAX_STEPS = 60
APPLICATION_RESCALE = 0.7
"""Fixed in the published applications (spec section 11.2)."""
WIDTH_OF_256_MODEL = 32
"""Latents this wide make the applications fall back to `uniform` spacing without rescale (spec section 6.4)."""
NO_IMAGE_SCALE = object()
"""Marks a case of two branches."""


class Noise(NamedTuple):
    """What is drawn for a sample.

    Attributes:
      posterior: (T, C, h, w).
      initial: (B, C, T, h, w).
      steps: one such array a step.
    """

    posterior: Float[np.ndarray, "T C h w"]
    initial: Float[np.ndarray, "B C T h w"]
    steps: list[np.ndarray]


@dataclass(frozen=True)
class Request:
    """One sample.

    Attributes:
      first, last: (1, H, W, 3) pictures at the model's size, in [-1, 1].
      clip_image: (1, H, W, 3) what the image tower sees, of any size.
      noise: is given, not drawn.
      spacing, steps, eta: of the sampler.
      scale, rescale, image_scale: of the guidance; `image_scale` None for two branches.
      hints: (1, T, H, W, 1) sketches or None.
      control_scale: of the sketches.
      motion: between the pictures, in pixels; None for no motion guidance.
      extra: results that are known before sampling.
    """

    first: np.ndarray
    last: np.ndarray
    clip_image: np.ndarray
    prompt: str
    fps: np.ndarray
    noise: Noise
    spacing: Spacing
    steps: int
    eta: float
    scale: float
    rescale: float
    image_scale: float | None = None
    hints: np.ndarray | None = None
    control_scale: float = 1.0
    motion: Motion | None = None
    extra: Results = field(default_factory=dict)


def _noise(inputs: Inputs) -> Noise:
    initial = inputs.array("x_T")
    steps = [np.asarray(noise, np.float32).reshape(initial.shape) for noise in inputs.value("step_noise")]
    return Noise(inputs.array("posterior_noise"), initial, steps)


def inference(model: VerifiedModel, inputs: Inputs, motion: Motion | None = None) -> Results:
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
        motion=motion,
        noise=_noise(inputs),
    )
    return sample(model, request)


def with_motion(model: VerifiedModel, inputs: Inputs) -> Results:
    """The command line with motion guidance, or without where `guided` is false; condition latents of all frames."""
    results = inference(model, inputs, given_motion(inputs, 1) if inputs.setting("guided") else None)
    return {**results, "condition_latents": results["all_condition_latents"]}


def application(model: VerifiedModel, inputs: Inputs) -> Results:
    """The web applications: pictures of any size, and with the input `guides` sketches (spec sections 7 and 11.2)."""
    height, width = inputs.setting("height"), inputs.setting("width")
    originals = {end: channels_last(STEPS["image"](inputs.array(f"image_{end}"), True)) for end in ("first", "last")}
    resized = {end: resize_tensor_like_app(image[0], height, width)[None] for end, image in originals.items()}
    extra: dict[str, HostArray] = {}
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
    is_256_model = noise.initial.shape[-1] == WIDTH_OF_256_MODEL
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
        noise=noise,
    )
    return sample(model, request)


def sample(model: VerifiedModel, request: Request) -> Results:
    """Composes the parts that users' samples go through with the given noise, one row at a time, and collects what they
    give.

    Returns:
      Everything that a manifest's pipelines store, in PyTorch layout.
    """
    sampler, params = model.sampler, model.params(*model.sampled_components)
    initial, image_scale = channels_last(request.noise.initial), request.image_scale
    batch, frames = initial.shape[:2]
    # The published sampler asks for no other prediction at scale 1, whatever the scale of the image.
    branches = 1 if request.scale == 1.0 else 2 if image_scale is None else 3

    # Encode: clip by clip, as one device does.
    seeds = sampler.place(np.zeros(1, np.uint32))  # unused: all noise is given
    pictures = sampler.place(np.concatenate([request.first, request.last])[None].astype(np.float32))
    posterior = sampler.place(channels_last(request.noise.posterior[[0, -1]])[None])
    both = only(params, "autoencoder", "decoder")
    moments, references = sampler.encode(both, pictures)
    ends = sampler.end_latents(moments, seeds, posterior, last=np.int32(frames - 1))

    # Condition.
    text = sampler.text(only(params, "clip_text"), tokenizer()([request.prompt] * batch))
    pixels = sampler.clip_pixels(np.repeat(np.asarray(request.clip_image, np.float32), batch, axis=0))
    image = sampler.image_tokens(only(params, "clip_image", "image_projector"), pixels)
    contexts = branch_contexts(text, image, sampler.unconditional_tokens(params) if branches > 1 else None, branches)
    hints = scale = None
    if request.hints is not None:
        hints = sampler.place(np.repeat(request.hints, batch, axis=0))
        scale = sampler.place(np.full(batch, request.control_scale, np.float32))
    fps = sampler.place(np.broadcast_to(np.asarray(request.fps, np.int32).reshape(-1), (batch,)))
    conditions = sampler.conditions(
        params, jnp.repeat(ends, batch, axis=0), frames, contexts, fps, hints, scale, request.motion
    )

    # Denoise.
    solver = solver_named(DEFAULT_SOLVER)
    rows = solver.rows(model.schedule, SolverOptions(spacing=request.spacing, steps=request.steps, eta=request.eta))
    latents, clean = [], []
    for _, after, predictions in sampler.sample(
        params,
        jnp.copy(sampler.place(initial)),  # the loop is given this, which must not be the caller's memory
        sampler.place(np.zeros(batch, np.uint32)),
        conditions,
        Guidance(float(request.scale), float(request.rescale), 1.0 if image_scale is None else float(image_scale)),
        solver=solver,
        rows=rows,
        branches=branches,
        rows_per_chunk=1,
        with_predictions=True,
        noise=np.stack([channels_last(noise) for noise in request.noise.steps]),
    ):
        latents.append(np.asarray(after, np.float32))
        clean.append(np.asarray(predictions, np.float32)[0])

    # Decode.
    window = model.config.unet.temporal_length

    def decode(clip: Latents, motion: Motion | None) -> Video:
        """As many frames at a time as the model's clips have, by themselves, as in the published code (spec section
        5.6).
        """
        del motion  # the published decoder does without
        parts = [
            sampler.decode(only(params, "decoder"), clip[:, i : i + window], references)
            for i in range(0, clip.shape[1], window)
        ]
        return jnp.concatenate(parts, axis=1)

    passes = [decode_twice(decode, jnp.asarray(latents[-1][i : i + 1])) for i in range(batch)]
    video, first, second = (
        np.concatenate([np.asarray(value) for value in values]) for values in zip(*passes, strict=True)
    )
    return {
        **request.extra,
        "timesteps": np.asarray(rows.timestep).astype(np.int64),
        "latents_after_step": np.stack([channels_first(x) for x in latents]),
        "pred_x0_after_step": np.stack([channels_first(x) for x in clean]),
        "frames": channels_first(video),
        "frames_before_replacement": channels_first(first),
        "frames_second_pass": channels_first(second),
        "text_context": np.asarray(text, np.float32)[:1],
        "image_context": np.asarray(image, np.float32)[:1],
        "condition_latents": channels_first(np.asarray(conditions.concat)[0][[0, -1]]),
        "all_condition_latents": channels_first(conditions.concat),
    }
