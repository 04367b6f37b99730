"""One training example of one clip: everything that the loader does before it makes batches."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32, UInt8, UInt32

from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.data.transforms import (
    DROPOUT,
    STRIDES,
    Draw,
    Window,
    choose_dropout,
    choose_window,
    frame_rate,
    generator,
    random_crop,
    resize_and_crop,
)
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.sketches.selection import BISECTION_DEPTHS, BISECTION_SHARE, choose_sketched_frames
from tooncrafter_jax.typing import HostArray, HostParams

REPLACEMENTS = 1000
"""Clips in a row that may be unusable before the set is."""
MAX_SEED = 2**64 - 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoaderConfig:
    """What examples are made of, and how they are served; the defaults are the published recipe's (spec sections 8.1 to
    8.4).

    Attributes:
      directory: of the set that `Loader.open` opens.
      split: of the set.
      embeddings: directory of the embeddings that `Loader.open` reads instead of pixels; empty for pixels.
      batch: examples of a batch, over all processes.
      frames: of an example.
      height, width: pixels of an example.
      crop_from: height and width that frames are brought to before the example's pixels are cut out of them at a random
        place (`transforms.random_crop`); empty where the example is the whole picture, as published.
      strides: smallest and largest step between two frames.
      start_multiple: an example starts at a multiple of this in its clip; 1 is the published rule, more let embeddings
        hold fewer pictures.
      antialias: whether downscaling averages over all source pixels; see `transforms.resize_and_crop`.
      dropout: probability p of the condition dropout; at most 1/3.
      bisection_share: of the examples whose sketched frames are found by bisection (spec section 8.7).
      bisection_depths: how often such a clip may be bisected, all as likely; 1 alone for models that are to follow one
        sketch.
      most_random_sketches: frames of the largest random subset that the other examples get; 0 for as many as an example
        has.
      sketched_share: of the examples that have sketches at all: below 1 where a denoiser learns with the sketch
        encoder, which must not forget how to do without.
      seed: of all randomness, 0 to 2**64 - 1.
      shuffle: whether every epoch takes the clips in another order, or each in the order of the set.
      repeat: whether it goes on over epochs for ever, or ends after one with a batch that is filled up (`Batch.valid`).
      on_damaged: whether a clip that cannot be read ends the run, or is left out like one that is too short.
      num_workers: processes that make batches; 0 for threads of this process.
      prefetch: batches that every worker keeps ready, there and once more on the way; without workers, threads that
        make batches and batches kept ready, where 0 makes each when it is asked for.
      video: whether batches have the pixels also where embeddings are read.
    """

    directory: str = ""
    split: str = "train"
    embeddings: str = ""
    batch: int = 32
    frames: int = 16
    height: int = 320
    width: int = 512
    crop_from: tuple[int, ...] = ()
    strides: tuple[int, int] = STRIDES
    start_multiple: int = 1
    antialias: bool = False
    dropout: float = DROPOUT
    bisection_share: float = BISECTION_SHARE
    bisection_depths: tuple[int, ...] = BISECTION_DEPTHS
    most_random_sketches: int = 0
    sketched_share: float = 1.0
    seed: int = 20230211
    shuffle: bool = True
    repeat: bool = True
    on_damaged: Literal["fail", "skip"] = "fail"
    num_workers: int = 0
    prefetch: int = 2
    video: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "frames", "height", "width", "start_multiple"):
            if getattr(self, name) < 1:
                raise UserError(f"config.data.{name} is {getattr(self, name)}, but must be at least 1")
        size = self.crop_from
        if size and (len(size) != 2 or size[0] < self.height or size[1] < self.width):
            raise UserError(
                f"config.data.crop_from is {size}, but must be empty, or a height and a width from {self.height} and "
                f"{self.width} on, out of which examples are cut"
            )
        for name in ("num_workers", "prefetch", "most_random_sketches"):
            if getattr(self, name) < 0:
                raise UserError(f"config.data.{name} is {getattr(self, name)}, but must be at least 0")
        if len(self.strides) != 2 or not 1 <= self.strides[0] <= self.strides[1]:
            raise UserError(
                f"config.data.strides are {self.strides}, but must be a smallest and a largest one from 1 on"
            )
        if not 0 <= self.dropout <= 1 / 3:
            raise UserError(
                f"config.data.dropout is {self.dropout}, but must be from 0 to 1/3, as it is used three times"
            )
        for name in ("bisection_share", "sketched_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"config.data.{name} is {getattr(self, name)}, but must be from 0 to 1")
        if not self.bisection_depths or min(self.bisection_depths) < 1:
            raise UserError(f"config.data.bisection_depths are {self.bisection_depths}, but must be numbers from 1 on")
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"config.data.seed is {self.seed}, but must be from 0 to 2**64 - 1")

    def evaluation(self) -> LoaderConfig:
        """The same for evaluation: every clip once, in the order of the set, with all conditions."""
        return replace(self, shuffle=False, repeat=False, dropout=0.0, sketched_share=1.0)

    def before_crop(self) -> LoaderConfig:
        """The same with examples of the size out of which they are cut, if they are."""
        if not self.crop_from:
            return self
        height, width = self.crop_from
        return replace(self, height=height, width=width, crop_from=())


class Batch(TypedDict):
    """The rows of a global batch that one process needs, all of them or some, in their order; b is how many.

    Attributes:
      video: frames; `nn.pixels.to_pixels` makes [-1, 1] of them on the device. Absent where embeddings are read
        instead.
      token_ids: of the caption; those of the empty prompt where the text is dropped.
      drop_image: whether the picture given to CLIP becomes all zero.
      fps: integer frame rate that the denoiser is conditioned on, floor(source fps / stride).
      stride: step between two frames in the clip.
      sketched: frames whose sketch guides, for training with sketches (spec section 8.7).
      seed: of the example, for its noise and time on the device (`diffusion.noise.clip_noise`).
      record: index of the clip in the set.
      valid: False for a row that only fills up the last batch of an evaluation, or stands for an unusable clip there.
      moments: mean and log-variance of the latents before the scale factor, (b, T, h, w, 2C); with embeddings.
      text: tokens of the caption or, where it is dropped, of the empty prompt, (b, 77, D); with embeddings.
      image: CLIP's tokens of the first frame or, where it is dropped, of the all-zero picture, (b, N, D); with
        embeddings.
    """

    video: NotRequired[UInt8[np.ndarray, "b T H W 3"]]
    token_ids: Int32[np.ndarray, "b 77"]
    drop_image: Bool[np.ndarray, "b"]
    fps: Int32[np.ndarray, "b"]
    stride: Int32[np.ndarray, "b"]
    sketched: Bool[np.ndarray, "b T"]
    seed: UInt32[np.ndarray, "b"]
    record: Int32[np.ndarray, "b"]
    valid: Bool[np.ndarray, "b"]
    moments: NotRequired[np.ndarray]
    text: NotRequired[np.ndarray]
    image: NotRequired[np.ndarray]


@runtime_checkable
class OpenClip(Protocol):
    """A clip of which an example can be made.

    Attributes:
      length: frames; 0 if it cannot be used.
      fps: frames a second.
    """

    length: int
    fps: float

    def caption_ids(self) -> Int32[np.ndarray, "77"]:
        """Token ids of the caption."""
        ...

    def arrays(
        self, window: Window, config: LoaderConfig, *, drop_text: bool, drop_image: bool
    ) -> Mapping[str, HostArray]:
        """The large arrays of an example: video, or embeddings.

        Raises:
          UserError: they are damaged.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Clips of which examples can be made; travels to other processes."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def check(self, config: LoaderConfig) -> None:
        """Finds out whether such examples can be made.

        Raises:
          UserError: they cannot.
        """
        ...

    def open(self, record: int) -> OpenClip:
        """The clip of this index.

        Raises:
          UserError: it is damaged.
        """
        ...

    def identity(self, record: int) -> str:
        """The id of the clip of this index; empty where it is damaged."""
        ...


class PixelSource:
    """Examples of the clips themselves: decoded, resized, cropped."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def check(self, config: LoaderConfig) -> None:
        """See `Source.check`; pixels serve every config."""

    def open(self, record: int) -> OpenPixels:
        """See `Source.open`."""
        return OpenPixels(self._clips[record])

    def identity(self, record: int) -> str:
        """See `Source.identity`."""
        try:
            return self._clips[record].id
        except UserError:
            return ""


class OpenPixels:
    """A clip whose frames are decoded when they are asked for; see `OpenClip`."""

    def __init__(self, clip: Clip) -> None:
        self.clip, self.length, self.fps = clip, len(clip), clip.fps

    def caption_ids(self) -> Int32[np.ndarray, "77"]:
        """See `OpenClip`."""
        return tokenizer()([self.clip.caption])[0]

    def arrays(
        self, window: Window, config: LoaderConfig, *, drop_text: bool = False, drop_image: bool = False
    ) -> HostParams:
        """The video of a window, uint8 (T, H, W, 3)."""
        pictures = self.clip.decode(window.frames)
        return {"video": resize_and_crop(pictures, config.height, config.width, config.antialias)}


@functools.cache
def empty_prompt_ids() -> Int32[np.ndarray, "77"]:
    """Token ids of the empty prompt."""
    return tokenizer()([""])[0]


class Examples:
    """Makes the example of any number; a callable that travels to other processes.

    Example numbers count up over epochs and over the rows of all processes. All that is random about an example is a
    function of the seed and its number.
    """

    def __init__(self, source: Source, config: LoaderConfig) -> None:
        self._source, self._config = source, config

    def __call__(self, number: int, record: int) -> dict[str, Any]:
        """The example of this number, of the clip of this index or, where that is unusable, of others.

        An unusable clip (too short; damaged, where that is allowed) is replaced by one drawn from the whole set; the
        published code takes the next one instead. Where each clip comes once (`repeat` off), the row is not valid then.

        Returns:
          A row of `Batch`, and how many clips were unusable: "too_short", "damaged".

        Raises:
          UserError: a clip is damaged and `on_damaged` is "fail", or too many in a row are unusable.
        """
        unusable = {"too_short": 0, "damaged": 0}
        filler = not self._config.repeat and number >= len(self._source)  # it fills the last batch
        valid = not filler
        redraw = generator(self._config.seed, number, Draw.REPLACEMENT)
        for _ in range(REPLACEMENTS):
            try:
                row = self._row(number, record)
            except UserError as error:
                if self._config.on_damaged == "fail":
                    raise
                _log.warning("left out: %s", error)
                row, reason = None, "damaged"
            else:
                reason = "too_short"
            if row is not None:
                return row | {"valid": np.bool_(valid)} | {k: np.int32(v) for k, v in unusable.items()}
            unusable[reason] += not filler
            valid = self._config.repeat
            record = int(redraw.integers(len(self._source)))
        raise UserError(
            f"{REPLACEMENTS} clips in a row cannot be used ({unusable['too_short']} have fewer than "
            f"{self._config.frames} frames, {unusable['damaged']} are damaged): check the set, or lower "
            "config.data.frames"
        )

    def _sketched(self, rng: np.random.Generator) -> Bool[np.ndarray, "T"]:
        """The frames that have a sketch: none in some examples, if that is asked for."""
        config = self._config
        chosen = choose_sketched_frames(
            rng, config.frames, config.bisection_share, config.bisection_depths, config.most_random_sketches
        )
        return chosen & (rng.random() < config.sketched_share)

    def _row(self, number: int, record: int) -> dict[str, Any] | None:
        """The row without what `__call__` adds; None if the clip is too short."""
        config = self._config
        clip = self._source.open(record)
        if clip.length < config.frames:
            return None

        def draw(purpose: Draw) -> np.random.Generator:
            return generator(config.seed, number, purpose)

        window = choose_window(draw(Draw.WINDOW), clip.length, config.frames, config.strides, config.start_multiple)
        drop_text, drop_image = choose_dropout(draw(Draw.DROPOUT), config.dropout)
        arrays = dict(clip.arrays(window, config.before_crop(), drop_text=drop_text, drop_image=drop_image))
        if config.crop_from:
            arrays["video"] = random_crop(draw(Draw.CROP), arrays["video"], config.height, config.width)
        return {
            **arrays,
            "token_ids": empty_prompt_ids() if drop_text else clip.caption_ids(),
            "drop_image": np.bool_(drop_image),
            "fps": np.int32(frame_rate(clip.fps, window.stride)),
            "stride": np.int32(window.stride),
            "sketched": self._sketched(draw(Draw.SKETCH)),
            "seed": draw(Draw.SEED).integers(2**32, dtype=np.uint32),
            "record": np.int32(record),
        }
