"""What a user asks for, checked and brought to arrays before anything expensive starts."""

from __future__ import annotations

import os
import typing
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from tooncrafter_jax.config_codec import convert, from_dict, plain
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, Spacing
from tooncrafter_jax.diffusion.solvers import DEFAULT_SOLVER, SolverOptions, solver_named
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io import check_is_picture_file
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling import foreign_names
from tooncrafter_jax.sampling.request_pictures import (
    MAX_ASPECT_DIFFERENCE,
    Fit,
    Picture,
    Sketch,
    as_rgb,
    check_sketches,
    prepare_pictures,
    whole_number,
)

__all__ = [
    "MAX_ASPECT_DIFFERENCE",
    "Fit",
    "Pair",
    "Picture",
    "PreparedPair",
    "SamplingOptions",
    "Sketch",
    "as_rgb",
    "check_pairs",
    "check_sketch_encoder",
    "make_options",
    "make_pairs",
    "prepare",
]

DEFAULT_SEED = 123
DEFAULT_FPS = 10
"""As in the published script (spec section 11.1)."""
MIN_FRAMES, MAX_FRAMES = 3, 1024
MAX_GUIDANCE_SCALE = 100.0
MAX_CONTROL_SCALE = 10.0
MIN_FRAMES_FOR_SECOND_PASS = 6
"""Below this the published indexing would take the wrong frames from the second decoding pass (spec section 5.5)."""
MAX_SEED = 2**32 - 1
MAX_SIDE = 4096
"""Pixels. At 4096 x 4096 one activation of the decoder, 128 channels of the 4 frames that it works on at a time, takes 16 GiB in
bfloat16; at twice the side, 64 GiB, which no accelerator of today has room for several times over."""
MAX_VALUES = 2**31 - 1
"""Of a clip: frames x height x width x 3. XLA counts places in an array in 32 bits where it can, and the host holds clips in
float32, 8 GiB at this size."""
MAX_PROMPT = 100_000
"""Characters; far above the 77 tokens that count, and low enough to tell a prompt from a file given by mistake."""
ARGUMENTS = ("first", "last", "prompt", "sketches", "seed", "fps", "on_progress")
"""Of `ToonCrafter.interpolate`, beside the options."""
_SHOWN_OF_PROMPT = 200


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample; the defaults are the published script's (spec section 11.1). Numbers may be numpy's.

    Attributes:
      solver: a name of `diffusion.solvers.SOLVERS`.
      steps: of the solver, 1 to the schedule's 1000; `uniform` spacing may round them up.
      eta: 0 (deterministic) to 1 (as noisy as the diffusion itself).
      guidance_scale: strength of prompt and image tokens, 0 to 100; 1 turns guidance off.
      guidance_rescale: share of the guided prediction brought back to the unguided contrast, 0 to 1.
      image_guidance_scale: strength of the image tokens alone, 0 to 100 (three branches); None for two branches.
      spacing: of the timesteps, `uniform_trailing` or `uniform`; the latter never visits the last time and suits no
        zero-terminal-SNR model.
      exact_last_step: ends at the clean latent, unlike the published sampler.
      frames: length of the clip, 3 to 1024; the model was trained on 16.
      height, width: pixels, multiples of `ModelConfig.pixel_multiple` (64 for the published model) up to 4096; None for the
        model's own size.
      fit: `crop` cuts the pictures to shape as published, `pad` keeps them whole; None is `crop`, and refuses first and last
        pictures of different shapes.
      control_scale: strength of the sketches, 0 to 10, usually up to 1.
      second_pass: whether the two middle frames are decoded again in another neighbourhood, as published.
      decode_frames_per_chunk: how many frames the decoder works on at a time, 1 or more, None for all; exact, less memory, a
        little slower.
      steps_per_chunk: steps between two calls of `on_progress`, 1 or more; None runs the whole loop at once.
    """

    solver: str = DEFAULT_SOLVER
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
    fit: Fit | None = None
    control_scale: float = 0.6
    second_pass: bool = True
    decode_frames_per_chunk: int | None = 4
    steps_per_chunk: int | None = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))

    def check(self, config: ModelConfig) -> None:
        """Raises UserError for the first setting that is of a wrong type, or out of range for this model."""
        hints = typing.get_type_hints(SamplingOptions)
        for field in fields(self):
            if not _is_choice(hints[field.name]):
                convert(hints[field.name], getattr(self, field.name), f"the sampling options.{field.name}")

        def need(condition: bool, sentence: str) -> None:
            if not condition:
                raise UserError(sentence)

        solver_named(self.solver).rows(NoiseSchedule(config.schedule), self.solver_options)
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
        need(self.fit in (None, *get_args(Fit)), f"unknown fit '{self.fit}': choose one of {', '.join(get_args(Fit))}")
        for name in ("decode_frames_per_chunk", "steps_per_chunk"):
            value = getattr(self, name)
            need(value is None or value >= 1, f"{name} must be at least 1, not {value}")
        multiple = config.pixel_multiple
        for name, value in zip(("height", "width"), self.size(config), strict=True):
            need(
                value > 0 and value % multiple == 0,
                f"the {name} must be a multiple of {multiple} pixels, not {value}: "
                f"try {min(max(1, round(value / multiple)) * multiple, MAX_SIDE)}",
            )
            need(
                value <= MAX_SIDE,
                f"the {name} must be at most {MAX_SIDE} pixels, not {value}: more than that fits into no accelerator's memory",
            )
        height, width = self.size(config)
        need(
            self.frames * height * width * 3 <= MAX_VALUES,
            f"{self.frames} frames of {width} x {height} pixels are too many for one clip: choose fewer frames, at most "
            f"{MAX_VALUES // (height * width * 3)} of this size, or a smaller size",
        )

    @property
    def solver_options(self) -> SolverOptions:
        """What the solver is asked for."""
        return SolverOptions(self.spacing, self.steps, self.eta, self.exact_last_step)

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


def make_options(values: Mapping[str, Any], also: Sequence[str] = ()) -> SamplingOptions:
    """`SamplingOptions` from keyword arguments, with an error that names an unknown one.

    Args:
      values: name -> value; numbers may be numpy's.
      also: names that are taken beside the options, which an unknown one may be meant for.

    Raises:
      UserError: for an unknown option, naming ours where it is one of diffusers or of the published script, or one of the wrong
        type.
    """
    known = (*(field.name for field in fields(SamplingOptions)), *also)
    return from_dict(
        SamplingOptions,
        values,
        "the sampling options",
        also=also,
        advice=lambda name: foreign_names.advice(name, known),
    )


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
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = list(value)  # of numbers or texts; pictures have three axes
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


def check_pairs(pairs: Any, options: Any) -> None:
    """Raises UserError unless these are a list of `Pair`s, at least one, and `SamplingOptions`."""
    if isinstance(pairs, Pair) or not isinstance(pairs, Sequence) or not all(isinstance(pair, Pair) for pair in pairs):
        raise UserError("the pairs must be a list of tooncrafter_jax.Pair, such as [Pair(first, last)]")
    if not pairs:
        raise UserError("there are no pairs to interpolate")
    if not isinstance(options, SamplingOptions):
        raise UserError(f"the options must be tooncrafter_jax.SamplingOptions, not {type(options).__name__}")


def prepare(pair: Pair, options: SamplingOptions, config: ModelConfig) -> PreparedPair:
    """Reads and fits a pair's pictures and checks its settings; says on one line each what is lost of them.

    Raises:
      UserError: for a picture that cannot be read, pictures that do not fit, or a setting out of range.
    """
    seed, fps = check_settings(pair, options)
    height, width = options.size(config)
    if lost := tokenizer().lost(pair.prompt):
        whose = f"the prompt of {len(pair.prompt):,} characters is longer than the 77 tokens that count"
        note(f"{whose}: its end is cut off, '{printable(lost, _SHOWN_OF_PROMPT)}'")
    ends, hints = prepare_pictures(
        pair.first, pair.last, pair.sketches, frames=options.frames, height=height, width=width, fit=options.fit
    )
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
    seed, fps = whole_number(pair.seed, "the seed"), whole_number(pair.fps, "fps")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"the seed must be from 0 to {MAX_SEED}, not {seed}")
    if not 1 <= fps <= 1000:
        raise UserError(f"fps must be from 1 to 1000, not {fps}")
    check_sketches(pair.sketches, options.frames)
    drawings = (sketch.image if isinstance(sketch, Sketch) else sketch for sketch in (pair.sketches or {}).values())
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


def _is_choice(hint: Any) -> bool:
    """Whether a field takes one of a few names, which `SamplingOptions.check` tells in its own words."""
    return any(typing.get_origin(part) is Literal for part in (hint, *get_args(hint)))
