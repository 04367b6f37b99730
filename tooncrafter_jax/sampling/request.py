"""What a user asks for, checked and brought to arrays before anything expensive starts."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.config_codec import from_dict
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io import check_is_picture_file
from tooncrafter_jax.io.cels import CelKeys
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.notes import note
from tooncrafter_jax.options import Option, check_ranges, published_names, with_attributes
from tooncrafter_jax.sampling import foreign_names
from tooncrafter_jax.sampling.request_pictures import (
    Picture,
    Sketch,
    Sketches,
    as_rgb,
    check_sketches,
    prepare_draft,
    prepare_pictures,
    sketches_by_frame,
    whole_number,
)
from tooncrafter_jax.sampling.sampling_options import MAX_SIDE, SamplingOptions
from tooncrafter_jax.typing import AnyArray, HostArray, JsonObject

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
    "Sketches",
    "as_rgb",
    "check_is_options",
    "check_pairs",
    "check_settings",
    "check_sketch_encoder",
    "checked_count",
    "make_options",
    "make_pairs",
    "prepare",
    "references_of",
    "sketches_by_frame",
    "tell_texts",
    "with_variations",
]

DEFAULT_SEED = 123
DEFAULT_FPS = 10
"""As in the published script (spec section 11.1)."""
MIN_FRAMES_FOR_SECOND_PASS = 6
"""Below this the published indexing would take the wrong frames from the second decoding pass (spec section 5.5)."""
MAX_PROMPT = 100_000
"""Characters; far above the 77 tokens that count, and low enough to tell a prompt from a file given by mistake."""
ARGUMENTS = (
    "first",
    "last",
    "prompt",
    "sketches",
    "seed",
    "fps",
    "negative_prompt",
    "draft",
    "latents",
    "samples_per_pair",
    "pick",
    "on_progress",
)
"""Of `ToonCrafter.interpolate`, beside the options."""
_SHOWN_OF_PROMPT = 200


Draft = Sequence[Picture] | UInt8[np.ndarray, "drawn drawn_height drawn_width 3"]
"""A rough version of a clip: a picture for each frame."""


class Pair(NamedTuple):
    """One clip to make.

    Attributes:
      first, last: its end frames. Without a last one every frame needs a sketch, and the first tells their colours.
      sketches: frame number (0 is the first) -> drawing, or a drawing for each frame, of which some may be blank.
      draft: a rough version of every frame, to be drawn anew with a `strength` below 1.
      latents: (T, h, w, C) float, what sampling starts from instead of the seed's noise: standard normal, of the
        latents' size.
    """

    first: Picture
    last: Picture | None
    prompt: Annotated[
        str, Option("what happens between them; may be left out, and 77 tokens count", published="--text_input")
    ] = ""
    sketches: Sketches | None = None
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
    negative_prompt: Annotated[
        str,
        Option(
            "what guidance leads away from, instead of from no prompt at all; the published script does not use it",
            published="--negative_prompt",
        ),
    ] = ""
    draft: Draft | None = None
    latents: AnyArray | HostArray | None = None


Pair.__doc__ = with_attributes(Pair.__doc__, Pair)


class PreparedPair(NamedTuple):
    """A pair as arrays.

    Attributes:
      ends: (2, H, W, 3) in [-1, 1].
      hints: (T, H, W, 1) in [0, 1], or None without sketches.
      prompt, seed, fps, negative_prompt: as in `Pair`.
      clip_image: (H', W', 3) in [-1, 1], what the image tower sees if not the first of `ends`; of one size in a batch.
      draft: (T, H, W, 3) in [-1, 1], or None; all clips of a batch have one, or none.
      latents: (T, h, w, C) float32, or None for the seed's noise.
      cels: `ends` with their opacity, where that is kept.
      open_end: whether nothing is known of the last frame, and the second of `ends` is the first again, which the
        decoder takes colours from.
    """

    ends: np.ndarray
    hints: np.ndarray | None
    prompt: str
    seed: int
    fps: int
    clip_image: np.ndarray | None = None
    negative_prompt: str = ""
    draft: np.ndarray | None = None
    latents: np.ndarray | None = None
    cels: CelKeys | None = None
    open_end: bool = False


def make_options(
    values: JsonObject, also: Sequence[str] = (), *, where: str = "the sampling options"
) -> SamplingOptions:
    """`SamplingOptions` from keyword arguments, with an error that names an unknown one.

    Args:
      values: name -> value; numbers may be numpy's.
      also: names that are taken beside the options, which an unknown one may be meant for.
      where: what holds them, for messages.

    Raises:
      UserError: for an unknown option, naming ours where it is one of diffusers or of the published script, or one of
        the wrong type.
    """
    known = (*(field.name for field in fields(SamplingOptions)), *also)
    return from_dict(
        SamplingOptions,
        values,
        where,
        also=also,
        advice=lambda name: foreign_names.advice(name, known, published_names(SamplingOptions, Pair)),
    )


def make_pairs(
    first: Picture | Sequence[Picture],
    last: Picture | Sequence[Picture | None] | None,
    prompt: str | Sequence[str],
    sketches: Sketches | Sequence[Sketches | None] | None,
    seed: int | Sequence[int],
    fps: int | Sequence[int],
    negative_prompt: str | Sequence[str] = "",
    draft: Draft | Sequence[Draft | None] | None = None,
    latents: AnyArray | HostArray | Sequence[AnyArray | HostArray | None] | None = None,
) -> list[Pair]:
    """One pair for each first picture; of the rest, one for all or a list (see `Pair`).

    With a single first picture, a list of pictures is its draft, and one of drawings its sketches; with several, a list
    has a draft, or sketches, for each.

    Raises:
      UserError: a list has another length than that of the first pictures.
    """
    several = isinstance(first, list | tuple)
    firsts = list(first) if several else [first]

    def each(value: object, what: str, axes: int = 0) -> list[Any]:
        """The value of each pair; `axes` are those of one value that is an array."""
        if isinstance(value, np.ndarray | jax.Array) and value.ndim == axes + 1:
            value = list(value)
        if not isinstance(value, list | tuple):
            return [value] * len(firsts)
        if len(value) != len(firsts):
            raise UserError(
                f"there are {len(firsts)} first pictures but {len(value)} {what}: give as many, or one for all"
            )
        return list(value)

    return [
        Pair(*fields)
        for fields in zip(
            firsts,
            each(last, "last pictures"),
            each(prompt, "prompts"),
            each([sketches] if not several and is_series(sketches) else sketches, "sets of sketches"),
            each(seed, "seeds"),
            each(fps, "frame rates"),
            each(negative_prompt, "negative prompts"),
            each(draft if several else [draft], "drafts", axes=4),
            each(latents if several else [latents], "arrays of latents", axes=4),
            strict=True,
        )
    ]


def references_of(references: Picture | Sequence[Picture]) -> tuple[Picture, Picture | None]:
    """The first picture of a clip, and the last one if there are two.

    Raises:
      UserError: there are none, or more.
    """
    given: list[Any] = list(references) if isinstance(references, list | tuple) else [references]
    if not 1 <= len(given) <= 2:
        raise UserError(
            f"there are {len(given)} references: give one, which is the first frame in colours, or two, the first and "
            "the last"
        )
    return given[0], given[1] if len(given) == 2 else None


def is_series(sketches: object) -> bool:
    """Whether sketches are a drawing for each frame of one clip."""
    if isinstance(sketches, np.ndarray):
        return sketches.ndim == 4
    if not isinstance(sketches, list | tuple):
        return False
    return not all(one is None or isinstance(one, Mapping | list | tuple) for one in sketches)


def checked_count(samples_per_pair: object) -> int:
    """How many variants of a pair are drawn.

    Raises:
      UserError: it is no whole number from 1.
    """
    count = whole_number(samples_per_pair, "samples_per_pair")
    if count < 1:
        raise UserError(f"samples_per_pair must be at least 1, not {count}")
    return count


def with_variations(pair: Pair, count: int) -> list[Pair]:
    """A pair so many times, with seeds counting up.

    Raises:
      UserError: the seed is no whole number.
    """
    if count == 1:
        return [pair]
    seed = whole_number(pair.seed, "the seed")
    return [pair._replace(seed=seed + number) for number in range(count)]


def check_pairs(pairs: object, options: object) -> None:
    """Raises UserError unless these are a list of `Pair`s, at least one, and `SamplingOptions`."""
    if isinstance(pairs, Pair) or not isinstance(pairs, Sequence) or not all(isinstance(pair, Pair) for pair in pairs):
        raise UserError("the pairs must be a list of tooncrafter_jax.Pair, such as [Pair(first, last)]")
    if not pairs:
        raise UserError("there are no pairs to interpolate")
    check_is_options(options)


def check_is_options(options: object) -> None:
    """Raises UserError unless these are `SamplingOptions`."""
    if not isinstance(options, SamplingOptions):
        raise UserError(f"the options must be tooncrafter_jax.SamplingOptions, not {type(options).__name__}")


def prepare(pair: Pair, options: SamplingOptions, config: ModelConfig) -> PreparedPair:
    """Reads and fits a pair's pictures and checks its settings; says on one line each what is lost of them.

    Raises:
      UserError: for a picture that cannot be read, pictures that do not fit, or a setting out of range.
    """
    seed, fps = check_settings(pair, options)
    height, width = options.size(config)
    tell_texts(pair, options)
    ends, hints, cels = prepare_pictures(
        pair.first, pair.last, pair.sketches, options=options, height=height, width=width
    )
    draft = None
    if pair.draft is not None:
        draft = prepare_draft(pair.draft, pair.first, options, height, width, cels)
    return PreparedPair(
        ends,
        hints,
        pair.prompt,
        seed,
        fps,
        negative_prompt=pair.negative_prompt,
        draft=draft,
        latents=None if pair.latents is None else _latents(pair.latents, options, config),
        cels=cels,
        open_end=pair.last is None,
    )


def tell_texts(pair: Pair, options: SamplingOptions) -> None:
    """Says on one line each what of a pair's prompts and their guidance does not count."""
    for what, text in _texts(pair):
        if lost := tokenizer().lost(text):
            whose = f"the {what} of {len(text):,} characters is longer than the 77 tokens that count"
            note(f"{whose}: its end is cut off, '{printable(lost, _SHOWN_OF_PROMPT)}'")
    if pair.negative_prompt and not options.is_guided:
        note("the negative prompt has no effect: at a guidance scale of 1 nothing leads away from it")
    if options.guidance_interval is not None and not options.is_guided:
        note("the guidance interval has no effect: at a guidance scale of 1 there is no guidance")


def check_settings(pair: Pair, options: SamplingOptions) -> tuple[int, int]:
    """Checks everything of a pair that can be checked without reading a picture.

    Returns:
      The seed and fps.

    Raises:
      UserError: a setting is out of range, or the file of a picture is missing or empty.
    """
    for what, text in _texts(pair):
        if not isinstance(text, str):
            raise UserError(f"a {what} must be text, not {type(text).__name__}")
        if len(text) > MAX_PROMPT:
            raise UserError(
                f"the {what} has {len(text):,} characters: at most {MAX_PROMPT:,} are read, 77 tokens count"
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"the {what} contains bytes that are not text in UTF-8: type it again")
    seed, fps = whole_number(pair.seed, "the seed"), whole_number(pair.fps, "fps")
    check_ranges(pair._replace(seed=seed, fps=fps))
    check_sketches(pair.sketches, options.frames)
    if pair.last is None:
        _check_open_end(pair, options)
    _check_draft(pair.draft, options)
    sketches = sketches_by_frame(pair.sketches).values()
    drawings = (sketch.image if isinstance(sketch, Sketch) else sketch for sketch in sketches)
    for picture in (pair.first, pair.last, *drawings, *(() if pair.draft is None else pair.draft)):
        if isinstance(picture, str | os.PathLike):
            check_is_picture_file(os.fspath(picture))
    return seed, fps


def _check_open_end(pair: Pair, options: SamplingOptions) -> None:
    """Raises UserError for what cannot be had without a last picture."""
    missing = sorted(set(range(options.frames)) - set(sketches_by_frame(pair.sketches)))
    if missing:
        raise UserError(
            f"without a last picture every frame needs a sketch, and frame {missing[0]} has none: give a sketch for "
            f"each of the {options.frames} frames, or a last picture"
        )


def _texts(pair: Pair) -> tuple[tuple[str, str], ...]:
    return ("prompt", pair.prompt), ("negative prompt", pair.negative_prompt)


def _check_draft(draft: object, options: SamplingOptions) -> None:
    """Raises UserError unless this is None or a picture for each frame, and the strength fits to that."""
    if draft is None:
        if options.strength < 1:
            raise UserError(
                f"a strength of {options.strength:g} says how much of a draft is drawn anew, but there is none: give "
                "the draft's frames, or leave strength out"
            )
        return
    if isinstance(draft, str | os.PathLike) or not isinstance(draft, Sequence | np.ndarray):
        raise UserError(f"a draft must be a list of pictures, one for each frame, not {type(draft).__name__}")
    if len(draft) != options.frames:
        raise UserError(
            f"the draft has {len(draft)} pictures, but the clip {options.frames} frames, the first and the last "
            f"among them: give {options.frames} pictures, or choose the number of frames"
        )
    if options.two_backgrounds:
        raise UserError("a draft lies over one background, and two are drawn over: leave two_backgrounds or it out")
    if options.strength == 1:
        raise UserError(
            "at strength 1 everything is drawn anew, and nothing of the draft would be left: choose a strength below "
            "1, such as 0.6"
        )


def _latents(values: AnyArray | HostArray, options: SamplingOptions, config: ModelConfig) -> HostArray:
    height, width = (side // config.autoencoder.downscaling for side in options.size(config))
    shape = (options.frames, height, width, config.autoencoder.latent_channels)
    array = np.asarray(values)
    if array.shape != shape or not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"latents must be floats of the shape {shape}, not {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise UserError("there are NaN or infinite values among the latents")
    return array.astype(np.float32)


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
            f"sketches become {sketches} times smaller, but this model's latents {latents} times: leave the "
            "sketches out"
        )
