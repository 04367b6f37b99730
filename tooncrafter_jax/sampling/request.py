"""What a user asks for, checked and brought to arrays before anything expensive starts."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, NamedTuple

import numpy as np

from tooncrafter_jax.config_codec import from_dict
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io import check_is_picture_file
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.notes import note
from tooncrafter_jax.options import Option, check_ranges, published_names, with_attributes
from tooncrafter_jax.sampling import foreign_names
from tooncrafter_jax.sampling.request_pictures import (
    Picture,
    Sketch,
    as_rgb,
    check_sketches,
    prepare_pictures,
    whole_number,
)
from tooncrafter_jax.sampling.sampling_options import MAX_SIDE, SamplingOptions
from tooncrafter_jax.typing import JsonObject

__all__ = [
    "ARGUMENTS",
    "DEFAULT_FPS",
    "DEFAULT_SEED",
    "MAX_PROMPT",
    "MAX_SIDE",
    "MIN_FRAMES_FOR_SECOND_PASS",
    "Pair",
    "Picture",
    "PreparedPair",
    "SamplingOptions",
    "Sketch",
    "as_rgb",
    "check_pairs",
    "check_settings",
    "check_sketch_encoder",
    "make_options",
    "make_pairs",
    "prepare",
]

DEFAULT_SEED = 123
DEFAULT_FPS = 10
"""As in the published script (spec section 11.1)."""
MIN_FRAMES_FOR_SECOND_PASS = 6
"""Below this the published indexing would take the wrong frames from the second decoding pass (spec section 5.5)."""
MAX_PROMPT = 100_000
"""Characters; far above the 77 tokens that count, and low enough to tell a prompt from a file given by mistake."""
ARGUMENTS = ("first", "last", "prompt", "sketches", "seed", "fps", "on_progress")
"""Of `ToonCrafter.interpolate`, beside the options."""
_SHOWN_OF_PROMPT = 200


class Pair(NamedTuple):
    """One clip to make.

    Attributes:
      first, last: its end frames.
      sketches: frame number (0 is the first) -> drawing.
    """

    first: Picture
    last: Picture
    prompt: Annotated[
        str, Option("what happens between them; may be left out, and 77 tokens count", published="--text_input")
    ] = ""
    sketches: Mapping[int, Sketch | Picture] | None = None
    seed: Annotated[int, Option("same seed, same clip", least=0, most=2**32 - 1, published="--seed")] = DEFAULT_SEED
    fps: Annotated[
        int,
        Option(
            "frame rate that the model is told, usually 5 to 30: smaller means larger motion",
            least=1,
            most=1000,
            published="--frame_stride",
            called="fps",
        ),
    ] = DEFAULT_FPS


Pair.__doc__ = with_attributes(Pair.__doc__, Pair)


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


def make_options(values: JsonObject, also: Sequence[str] = ()) -> SamplingOptions:
    """`SamplingOptions` from keyword arguments, with an error that names an unknown one.

    Args:
      values: name -> value; numbers may be numpy's.
      also: names that are taken beside the options, which an unknown one may be meant for.

    Raises:
      UserError: for an unknown option, naming ours where it is one of diffusers or of the published script, or one of
        the wrong type.
    """
    known = (*(field.name for field in fields(SamplingOptions)), *also)
    return from_dict(
        SamplingOptions,
        values,
        "the sampling options",
        also=also,
        advice=lambda name: foreign_names.advice(name, known, published_names(SamplingOptions, Pair)),
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

    def each(value: object, what: str) -> list[Any]:
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


def check_pairs(pairs: object, options: object) -> None:
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
    check_ranges(pair._replace(seed=seed, fps=fps))
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
            f"sketches become {sketches} times smaller, but this model's latents {latents} times: leave the sketches "
            "out"
        )
