"""Whole samples by users' own pipeline, with given noise, as the published programs make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tooncrafter_jax.io import resize_tensor_like_app, sketch_to_hint
from tooncrafter_jax.sampling.observation import Replay
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.verification.expressions import STEPS
from tooncrafter_jax.verification.inputs import Inputs
from tooncrafter_jax.verification.layout import channels_first, channels_last
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
    """Runs users' own pipeline with the given noise, one step at a time, and collects what comes of it on the way.

    Returns:
      Everything that a manifest's pipelines store, in PyTorch layout.
    """
    initial, image_scale = channels_last(request.initial_noise), request.image_scale
    batch = initial.shape[0]
    fps = np.broadcast_to(np.asarray(request.fps).reshape(-1), (batch,))
    ends, hints = np.concatenate([request.first, request.last]), request.hints
    pairs = [
        PreparedPair(
            np.asarray(ends, np.float32),
            None if hints is None else hints[0],
            request.prompt,
            seed=0,  # unused: all noise is given
            fps=int(rate),
            clip_image=np.asarray(request.clip_image[0], np.float32),
        )
        for rate in fps
    ]
    options = SamplingOptions(
        steps=request.steps,
        eta=request.eta,
        guidance_scale=float(request.scale),
        guidance_rescale=float(request.rescale),
        # The published sampler asks for no other prediction at scale 1, whatever the scale of the image.
        image_guidance_scale=None if image_scale is None or request.scale == 1.0 else float(image_scale),
        spacing=request.spacing,
        frames=initial.shape[1],
        height=ends.shape[1],
        width=ends.shape[2],
        control_scale=float(request.control_scale),
        steps_per_chunk=1,
    )
    found: dict[str, list[np.ndarray]] = {}
    replay = Replay(
        posterior=np.repeat(channels_last(request.posterior_noise[[0, -1]])[None], batch, axis=0),
        initial=initial,
        steps=np.stack([channels_last(noise) for noise in request.step_noise]),
        observe=lambda name, value: found.setdefault(name, []).append(np.asarray(value, np.float32)),
        window=model.config.unet.temporal_length,
    )
    frames = model.toon.sample_prepared(pairs, options, replay=replay)
    return {
        **request.extra,
        "timesteps": found["timesteps"][0].astype(np.int64),
        "latents_after_step": np.stack([channels_first(x) for x in found["latents"]]),
        "pred_x0_after_step": np.stack([channels_first(x[0]) for x in found["clean"]]),
        "frames": channels_first(frames),
        "frames_before_replacement": channels_first(np.concatenate(found["first_pass"])),
        "frames_second_pass": channels_first(np.concatenate(found["second_pass"])),
        "text_context": found["text"][0][:1],
        "image_context": found["image"][0][:1],
        "condition_latents": channels_first(found["condition_latents"][0][0][[0, -1]]),
    }
