"""What a client asks for, as JSON: its schema is made from the options that are declared once, and from it come the
pair or the shot that the sampler knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.json_files import parse_json
from tooncrafter_jax.options import Declared, declared
from tooncrafter_jax.sampling.batch.entries import Entry
from tooncrafter_jax.sampling.batch.model_source import DescribedModel
from tooncrafter_jax.sampling.batch.selection import check_pair
from tooncrafter_jax.sampling.batch.shot_jobs import shot_of_entry
from tooncrafter_jax.sampling.motion_source import missing_motion
from tooncrafter_jax.sampling.request import (
    DEFAULT_FPS,
    DEFAULT_SEED,
    Pair,
    SamplingOptions,
    Sketch,
    check_sketch_encoder,
    make_options,
    prepare,
)
from tooncrafter_jax.sampling.sequence import Shot, ShotOptions, lay_out
from tooncrafter_jax.sampling.timing import CHARTS, CURVES
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.typing import JsonObject

Reference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        description="a picture: the name of a part of this form, or the sha256 of one that was sent before",
    ),
]
Frame = Annotated[str, Field(pattern="^[0-9]{1,6}$")]
Frames = Annotated[str, Field(pattern="^[0-9]{1,6}(-[0-9]{1,6})?$")]
MOST_REFERENCES = 1000
"""Pictures that a job may name."""


def of_declared(cls: type, name: str) -> Any:
    """A field as an option declares it: what it does, and its range."""
    one = declared(cls)[name]
    return Field(description=one.description, ge=one.option.least, le=one.option.most)


class _Strict(BaseModel):
    """Unknown keys and values of another type are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SketchPart(_Strict):
    """A sketch of which more is said than its picture."""

    picture: Reference
    dark_lines: bool | None = Field(None, description="whether its lines are darker than the paper")
    may_be_blank: bool = Field(False, description="whether it may have no lines, and then guides nothing")


Sketches = Annotated[
    dict[Frame, Reference | SketchPart],
    Field(max_length=MOST_REFERENCES, description="frame -> drawing that guides it"),
]


def _option(one: Declared) -> Any:
    kind: Any = Literal[tuple(one.choices)] if one.choices else one.kind
    text = one.description + (f" (default: {one.default_text})" if one.default_text else "")
    return kind | None, Field(None, description=text, ge=one.option.least, le=one.option.most)


Options: type[BaseModel] = create_model(
    "Options",
    __base__=_Strict,
    __doc__="How to sample; what is left out is the model's own or the published default.",
    **{name: _option(one) for name, one in declared(SamplingOptions).items() if not one.option.of_python},
)
"""The schema of `SamplingOptions`; `make_options` reads them, so that its sentences are those of every command."""
GivenOptions = Annotated[dict[str, Any], WithJsonSchema(Options.model_json_schema())]


class _Described(_Strict):
    """What pairs and shots share."""

    model: str = Field("", max_length=200, description="of `/v1/models`; the first of them without")
    name: str = Field("", max_length=200, description="what the client calls the job")
    negative_prompt: Annotated[str, of_declared(Pair, "negative_prompt"), Field(max_length=100_000)] = ""
    seed: Annotated[int, of_declared(Pair, "seed")] = DEFAULT_SEED
    fps: Annotated[int, of_declared(Pair, "fps")] = DEFAULT_FPS
    sketches: Sketches = Field(default_factory=dict)
    options: GivenOptions = Field(default_factory=dict)


class PairDescription(_Described):
    """The frames between two pictures; or, with a sketch for each frame, those after one."""

    first: Reference
    last: Reference | None = Field(None, description="the last frame; without it every frame needs a sketch")
    prompt: Annotated[str, of_declared(Pair, "prompt"), Field(max_length=100_000)] = ""
    draft: list[Reference] | None = Field(None, max_length=MOST_REFERENCES, description="a picture for each frame")

    def references(self) -> set[str]:
        """The pictures that it names."""
        ends = {self.first} if self.last is None else {self.first, self.last}
        return {*ends, *_sketched(self.sketches), *(self.draft or ())}


class ShotDescription(_Described):
    """A shot: key drawings on frames of their own."""

    keys: dict[Frame, Reference] = Field(min_length=2, max_length=MOST_REFERENCES, description="frame -> key drawing")
    prompt: Annotated[str, Field(max_length=100_000)] | dict[Frames, Annotated[str, Field(max_length=100_000)]] = Field(
        "", description='of all frames, or by frames: {"0-24": "walks", "25": "runs"}'
    )
    timing: str | list[float] | dict[Frame, str | list[float]] = Field(
        "linear",
        description="where drawings stand between two keys; of all gaps, or by the frame where one begins",
        examples=[*CURVES, *CHARTS],
    )
    exposure: int | str | list[int] | dict[Frame, int | str | list[int]] = Field(
        1, description="frames that a drawing is held; of all gaps, or by the frame where one begins"
    )
    loop: bool = Field(False, description="the last key is the first again, which is not shown twice")
    exact_keys: Annotated[bool, of_declared(ShotOptions, "exact_keys")] = True
    through_keys: Annotated[bool, of_declared(ShotOptions, "through_keys")] = False
    unevenness: Annotated[float, of_declared(ShotOptions, "unevenness")] = 0.5

    def references(self) -> set[str]:
        """The pictures that it names."""
        return {*self.keys.values(), *_sketched(self.sketches)}


AnyDescription = PairDescription | ShotDescription


def parse(data: bytes | str) -> tuple[JsonObject, AnyDescription]:
    """A request as it was sent, and what it says.

    Raises:
      UserError: it is none; names the key that is wrong.
    """
    try:
        values = parse_json(data)
    except ValueError as error:
        raise UserError(f"the request is not JSON ({printable(error, 100)})") from error
    if not isinstance(values, dict):
        raise UserError('the request must be an object such as {"first": "a", "last": "b"}')
    return values, described(values)


def described(values: JsonObject) -> AnyDescription:
    """What a request says: a shot if it has keys, else a pair.

    Raises:
      UserError: it is none; names the key that is wrong.
    """
    kind = ShotDescription if "keys" in values else PairDescription
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(printable(part, 60) for part in first["loc"])
        raise UserError(f"the request's '{where}' cannot be read: {first['msg']}") from error


class Work(NamedTuple):
    """What is to be drawn.

    Attributes:
      what: a pair or a shot, its pictures by path.
      options: how.
      names: path of a picture -> what the client calls it.
    """

    what: Pair | Shot
    options: SamplingOptions
    names: Mapping[str, str]

    def told(self, sentence: str) -> str:
        """A sentence in the client's words."""
        return told(sentence, self.names)


def told(sentence: str, names: Mapping[str, str]) -> str:
    """A sentence in a client's words: it knows of no path.

    Args:
      sentence: perhaps with paths of pictures.
      names: path of a picture -> what the client calls it.
    """
    for path, name in names.items():
        sentence = sentence.replace(path, printable(name))
    return sentence


def work_of(asked: AnyDescription, paths: Mapping[str, Path], model: DescribedModel) -> Work:
    """The pair or shot that is asked for.

    Args:
      asked: the request.
      paths: what it calls a picture -> its file.
      model: what draws it; its own options count where none are given.

    Raises:
      UserError: it is none.
    """
    options = make_options({**model.sampling, **asked.options})
    names = {str(path): name for name, path in paths.items()}
    sketches = {int(frame): _sketch(one, paths.__getitem__) for frame, one in asked.sketches.items()} or None
    if isinstance(asked, PairDescription):
        draft = None if asked.draft is None else [paths[one] for one in asked.draft]
        first, last = paths[asked.first], None if asked.last is None else paths[asked.last]
        pair = Pair(first, last, asked.prompt, sketches, asked.seed, asked.fps, asked.negative_prompt, draft)
        return Work(pair, options, names)
    entry = asked.model_dump(exclude={"model", "name", "sketches", "options", "keys"})
    keys = {frame: str(paths[one]) for frame, one in sorted(asked.keys.items(), key=lambda item: int(item[0]))}
    shot = shot_of_entry(Entry({**entry, "keys": keys}, "the request", Path("/")), Shot({}), dark_lines=None).shot
    return Work(shot._replace(sketches=sketches), options, names)


def check(work: Work, model: DescribedModel, limits: Limits) -> None:
    """Finds out whether something can be drawn, before it waits for its turn; reads the pictures of a pair.

    Raises:
      UserError: if not.
    """
    options, config = work.options, model.config
    options.check(config)
    height, width = options.size(config)
    if height * width > limits.clip_pixels:
        raise UserError(
            f"a clip of {width} x {height} pixels is larger than this server draws: choose at most "
            f"{limits.clip_pixels:,} pixels"
        )
    if options.frames > limits.clip_frames:
        raise UserError(
            f"a clip of {options.frames} frames is longer than this server draws: choose at most {limits.clip_frames}"
        )
    if options.motion_guidance:
        missing_motion(config, model.components)
    if isinstance(work.what, Pair):
        check_pair(work.what, options, config, model.components)
        prepare(work.what, options, config)
        return
    layout = lay_out(work.what, options)
    if layout.frames > limits.shot_frames:
        raise UserError(
            f"a shot of {layout.frames} frames is longer than this server draws: choose at most {limits.shot_frames}, "
            "or cut it into several"
        )
    if layout.sketches:
        check_sketch_encoder(config, model.components)


def _sketched(sketches: Mapping[str, str | SketchPart]) -> set[str]:
    return {one.picture if isinstance(one, SketchPart) else one for one in sketches.values()}


def _sketch(one: str | SketchPart, path_of: Callable[[str], Path]) -> Sketch:
    if isinstance(one, SketchPart):
        return Sketch(path_of(one.picture), dark_lines=one.dark_lines, may_be_blank=one.may_be_blank)
    return Sketch(path_of(one))
