"""What a user asks for, checked and brought to arrays before anything expensive starts."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from tooncrafter_jax.config_codec import from_dict
from tooncrafter_jax.diffusion.schedule import Spacing, ddim_timesteps
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.media import (
    BLACK,
    WHITE,
    Colour,
    check_is_picture_file,
    fit_image,
    read_image,
    rgb_of_image,
    sketch_to_hint,
)
from tooncrafter_jax.models.configuration import ModelConfig

Picture = str | os.PathLike[str] | np.ndarray | Image.Image
"""A path, uint8 (H, W, 3), or a Pillow image."""
Fit = Literal["crop", "pad"]

DEFAULT_SEED = 123
DEFAULT_FPS = 10
"""As in the published script (spec section 11.1)."""
MIN_FRAMES, MAX_FRAMES = 3, 1024
MAX_GUIDANCE_SCALE = 100.0
MAX_CONTROL_SCALE = 10.0
MIN_FRAMES_FOR_SECOND_PASS = 6
"""Below this the published indexing would take the wrong frames from the second decoding pass (spec section 5.5)."""
MAX_SEED = 2**32 - 1
MAX_ASPECT_DIFFERENCE = 0.02
"""How far a sketch's width/height may be from the drawings', relatively, before it cannot line up with them."""
MAX_PROMPT = 100_000
"""Characters; far above the 77 tokens that count, and low enough to tell a prompt from a file given by mistake."""


@dataclass(frozen=True)
class Sketch:
    """A drawing that guides one frame.

    Attributes:
      image: path, uint8 array or Pillow image.
      dark_lines: whether lines are darker than the paper; False for bright lines on black.
    """

    image: Picture
    dark_lines: bool = True


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample; the defaults are the published script's (spec section 11.1).

    Attributes:
      steps: DDIM steps, 1 to the schedule's 1000; `uniform` spacing may round them up.
      eta: 0 (deterministic) to 1 (as noisy as the diffusion itself).
      guidance_scale: strength of prompt and image tokens, 0 to 100; 1 turns guidance off.
      guidance_rescale: share of the guided prediction brought back to the unguided contrast, 0 to 1.
      image_guidance_scale: strength of the image tokens alone, 0 to 100 (three branches); None for two branches.
      spacing: of the timesteps, `uniform_trailing` or `uniform`; the latter never visits the last time and suits no
        zero-terminal-SNR model.
      exact_last_step: ends at the clean latent, unlike the published sampler.
      frames: length of the clip, 3 to 1024; the model was trained on 16.
      height, width: pixels, multiples of `ModelConfig.pixel_multiple` (64 for the published model); None for the model's own
        size.
      fit: `crop` cuts the pictures to shape as published, `pad` keeps them whole.
      control_scale: strength of the sketches, 0 to 10, usually up to 1.
      second_pass: whether the two middle frames are decoded again in another neighbourhood, as published.
      decode_frames_per_chunk: how many frames the decoder works on at a time, 1 or more, None for all; exact, less memory, a
        little slower.
      steps_per_chunk: steps between two calls of `on_progress`, 1 or more; None runs the whole loop at once.
    """

    steps: int = 50
    eta: float = 1.0
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.7
    image_guidance_scale: float | None = None
    spacing: Spacing = "uniform_trailing"
    exact_last_step: bool = False
    frames: int = 16
    height: int | None = None
    width: int | None = None
    fit: Fit = "crop"
    control_scale: float = 0.6
    second_pass: bool = True
    decode_frames_per_chunk: int | None = 4
    steps_per_chunk: int | None = 5

    def check(self, config: ModelConfig) -> None:
        """Raises UserError for the first setting that is out of range for this model."""

        def need(condition: bool, sentence: str) -> None:
            if not condition:
                raise UserError(sentence)

        ddim_timesteps(config.schedule.timesteps, self.spacing, self.steps)
        need(0.0 <= self.eta <= 1.0, f"eta must be from 0 to 1, not {self.eta}")
        need(
            0.0 <= self.guidance_scale <= MAX_GUIDANCE_SCALE,
            f"the guidance scale must be from 0 to {MAX_GUIDANCE_SCALE:g}, not {self.guidance_scale}",
        )
        need(
            0.0 <= self.guidance_rescale <= 1.0,
            f"the guidance rescale must be from 0 to 1, not {self.guidance_rescale}",
        )
        image_scale = self.image_guidance_scale
        need(
            image_scale is None or 0.0 <= image_scale <= MAX_GUIDANCE_SCALE,
            f"the image guidance scale must be from 0 to {MAX_GUIDANCE_SCALE:g}, not {image_scale}",
        )
        need(
            0.0 <= self.control_scale <= MAX_CONTROL_SCALE,
            f"the control scale must be from 0 to {MAX_CONTROL_SCALE:g}, not {self.control_scale}",
        )
        need(
            MIN_FRAMES <= self.frames <= MAX_FRAMES,
            f"the number of frames must be from {MIN_FRAMES} to {MAX_FRAMES}, not {self.frames}",
        )
        need(self.fit in get_args(Fit), f"unknown fit '{self.fit}': choose one of {', '.join(get_args(Fit))}")
        for name in ("decode_frames_per_chunk", "steps_per_chunk"):
            value = getattr(self, name)
            need(value is None or value >= 1, f"{name} must be at least 1, not {value}")
        multiple = config.pixel_multiple
        for name, value in zip(("height", "width"), self.size(config), strict=True):
            need(
                value > 0 and value % multiple == 0,
                f"the {name} must be a multiple of {multiple} pixels, not {value}: "
                f"try {max(1, round(value / multiple)) * multiple}",
            )

    def size(self, config: ModelConfig) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        return (
            config.height if self.height is None else self.height,
            config.width if self.width is None else self.width,
        )


class Pair(NamedTuple):
    """One clip to make.

    Attributes:
      first, last: its end frames.
      prompt: what happens; may be empty, and at most 100,000 characters; 77 tokens count.
      sketches: frame number (0 is the first) -> drawing.
      seed: 0 to 2^32 - 1.
      fps: what the model is told about the frame rate, 1 to 1000, usually 5 to 30; smaller means larger motion.
    """

    first: Picture
    last: Picture
    prompt: str = ""
    sketches: Mapping[int, Sketch | Picture] | None = None
    seed: int = DEFAULT_SEED
    fps: int = DEFAULT_FPS


class PreparedPair(NamedTuple):
    """A pair as arrays.

    Attributes:
      ends: (2, H, W, 3) in [-1, 1].
      hints: (T, H, W, 1) in [0, 1], or None without sketches.
      prompt, seed, fps: as in `Pair`.
      clip_image: (H', W', 3) in [-1, 1], what the image tower sees if not the first of `ends`; of one size in a batch.
    """

    ends: np.ndarray
    hints: np.ndarray | None
    prompt: str
    seed: int
    fps: int
    clip_image: np.ndarray | None = None


def make_options(values: Mapping[str, Any]) -> SamplingOptions:
    """`SamplingOptions` from keyword arguments, with an error that names an unknown one.

    Raises:
      UserError: for an unknown option or one of the wrong type.
    """
    return from_dict(SamplingOptions, values, "the sampling options")


def make_pairs(
    first: Picture | Sequence[Picture],
    last: Picture | Sequence[Picture],
    prompt: str | Sequence[str],
    sketches: Mapping[int, Sketch | Picture] | Sequence[Mapping[int, Sketch | Picture] | None] | None,
    seed: int | Sequence[int],
    fps: int | Sequence[int],
) -> list[Pair]:
    """One pair for each first picture; of the rest, one for all or a list (see `Pair`).

    Raises:
      UserError: a list has another length than that of the first pictures.
    """
    firsts = list(first) if isinstance(first, list | tuple) else [first]

    def each(value: Any, what: str) -> list[Any]:
        if not isinstance(value, list | tuple):
            return [value] * len(firsts)
        if len(value) != len(firsts):
            raise UserError(f"there are {len(firsts)} first pictures but {len(value)} {what}")
        return list(value)

    return [
        Pair(*fields)
        for fields in zip(
            firsts,
            each(last, "last pictures"),
            each(prompt, "prompts"),
            each(sketches, "sets of sketches"),
            each(seed, "seeds"),
            each(fps, "frame rates"),
            strict=True,
        )
    ]


def prepare(pair: Pair, options: SamplingOptions, config: ModelConfig) -> PreparedPair:
    """Reads and fits a pair's pictures and checks its settings.

    Raises:
      UserError: for a picture that cannot be read, a sketch that does not fit, or a setting out of range.
    """
    seed, fps = check_settings(pair, options)
    height, width = options.size(config)
    first, last = as_rgb(pair.first, "the first picture"), as_rgb(pair.last, "the last picture")
    ends = np.stack([fit_image(picture, height, width, options.fit) for picture in (first, last)])
    hints = None
    if pair.sketches:
        hints = np.zeros((options.frames, height, width, 1), np.float32)
        for frame, sketch in pair.sketches.items():
            hints[_frame_number(frame, options.frames)] = _hint(frame, sketch, first.shape, options, height, width)
    return PreparedPair(ends, hints, pair.prompt, seed, fps)


def check_settings(pair: Pair, options: SamplingOptions) -> tuple[int, int]:
    """Checks everything of a pair that can be checked without reading a picture.

    Returns:
      The seed and fps.

    Raises:
      UserError: a setting is out of range, or the file of a picture is missing or empty.
    """
    if not isinstance(pair.prompt, str):
        raise UserError(f"a prompt must be text, not {type(pair.prompt).__name__}")
    if len(pair.prompt) > MAX_PROMPT:
        raise UserError(
            f"the prompt has {len(pair.prompt):,} characters: at most {MAX_PROMPT:,} are read, 77 tokens count"
        )
    if any("\ud800" <= character <= "\udfff" for character in pair.prompt):
        raise UserError("the prompt contains bytes that are not text in UTF-8: type it again")
    seed, fps = _whole(pair.seed, "the seed"), _whole(pair.fps, "fps")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"the seed must be from 0 to {MAX_SEED}, not {seed}")
    if not 1 <= fps <= 1000:
        raise UserError(f"fps must be from 1 to 1000, not {fps}")
    sketches = pair.sketches or {}
    for frame in sketches:
        _frame_number(frame, options.frames)
    drawings = (sketch.image if isinstance(sketch, Sketch) else sketch for sketch in sketches.values())
    for picture in (pair.first, pair.last, *drawings):
        if isinstance(picture, str | os.PathLike):
            check_is_picture_file(os.fspath(picture))
    return seed, fps


def check_sketch_encoder(config: ModelConfig, components: Container[str]) -> None:
    """Finds out whether a model can be guided by sketches.

    Args:
      config: its architecture.
      components: names of the components that it has.

    Raises:
      UserError: if it has no sketch encoder, or one whose features would not have the size of its latents.
    """
    if "sketch_encoder" not in components:
        raise UserError("this model has no sketch encoder: convert its file into the checkpoint directory first")
    sketches, latents = config.sketch_encoder.hint_downscaling, config.autoencoder.downscaling
    if latents != sketches:
        raise UserError(
            f"sketches become {sketches} times smaller, but this model's latents {latents} times: leave the sketches out"
        )


def as_rgb(picture: Picture, what: str, background: Colour = WHITE) -> np.ndarray:
    """A picture of any accepted kind as uint8 (H, W, 3); transparent pixels show `background`.

    Raises:
      UserError: if it cannot be read or has another shape or dtype; `what` names it.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(picture, background)
    if isinstance(picture, Image.Image):
        return rgb_of_image(picture, background, what)
    array: Any = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise UserError(f"{what} must be uint8 (H, W, 3), a Pillow image or a path, not {array.dtype} {array.shape}")
    return array


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UserError(f"{what} must be a whole number, not {value!r}")
    return int(value)


def _frame_number(frame: Any, frames: int) -> int:
    number = _whole(frame, "the frame of a sketch")
    if not 0 <= number < frames:
        raise UserError(f"there is no frame {number} for a sketch: frames are numbered 0 to {frames - 1}")
    return number


def _hint(
    frame: int, sketch: Sketch | Picture, drawing: Sequence[int], options: SamplingOptions, height: int, width: int
) -> np.ndarray:
    if not isinstance(sketch, Sketch):
        sketch = Sketch(sketch)
    paper = WHITE if sketch.dark_lines else BLACK
    image = as_rgb(sketch.image, f"the sketch for frame {frame}", paper)
    aspect, wanted = image.shape[1] / image.shape[0], drawing[1] / drawing[0]
    if abs(aspect / wanted - 1) > MAX_ASPECT_DIFFERENCE:
        raise UserError(
            f"the sketch for frame {frame} is {image.shape[1]} x {image.shape[0]} pixels, the drawings are "
            f"{drawing[1]} x {drawing[0]}: it has another shape and cannot line up with them"
        )
    if options.fit == "pad":
        fitted = fit_image(image, height, width, "pad", paper)
        image = np.round((fitted + 1) * 127.5).astype(np.uint8)
    return sketch_to_hint(image, height, width, sketch.dark_lines)
