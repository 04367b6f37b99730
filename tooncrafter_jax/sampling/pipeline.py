"""`ToonCrafter`: load once, interpolate many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import once
from tooncrafter_jax.runtime.processes import check_not_forked
from tooncrafter_jax.sampling.finishing import finished, sample_all
from tooncrafter_jax.sampling.frame_room import Room, memory
from tooncrafter_jax.sampling.model import Model
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.picking import Picking, picked_clips
from tooncrafter_jax.sampling.request import (
    ARGUMENTS,
    DEFAULT_FPS,
    DEFAULT_SEED,
    Draft,
    Pair,
    Picture,
    SamplingOptions,
    Sketch,
    Sketches,
    check_is_options,
    check_pairs,
    check_sketch_encoder,
    checked_count,
    make_options,
    make_pairs,
    prepare,
    references_of,
    with_variations,
)
from tooncrafter_jax.sampling.request_pictures import Series, whole_number
from tooncrafter_jax.sampling.sampling_keywords import SamplingKeywords
from tooncrafter_jax.sampling.sequence import SHOT_ARGUMENTS, Keys, Prompts, Shot, ShotOptions
from tooncrafter_jax.sampling.shot_drawing import Store, draw_shot
from tooncrafter_jax.sampling.shot_preparation import PreparedShot, prepare_shot
from tooncrafter_jax.sampling.timing import ExposureLike, TimingLike
from tooncrafter_jax.typing import AnyArray, HostArray, Uint8Clip, Uint8Clips


class ToonCrafter(Model):
    """A model ready to sample.

    Make one with `load` or `random`.

    JAX does not survive a fork: a process that was forked after a model was made can neither use it nor make another,
    and is told so. Start processes with `multiprocessing.get_context("spawn")`, and load the model in each.

    Attributes:
      config: the architecture.
      dtype: of the computation.
      devices: what it runs on.
      sampling: options of `SamplingOptions` that suit this model; `interpolate` takes them where none are given.
    """

    def interpolate(
        self,
        first: Picture | Sequence[Picture],
        last: Picture | Sequence[Picture | None] | None,
        prompt: str | Sequence[str] = "",
        sketches: Sketches | Sequence[Sketches | None] | None = None,
        *,
        seed: int | Sequence[int] = DEFAULT_SEED,
        fps: int | Sequence[int] = DEFAULT_FPS,
        negative_prompt: str | Sequence[str] = "",
        draft: Draft | Sequence[Draft | None] | None = None,
        latents: AnyArray | HostArray | Sequence[AnyArray | HostArray | None] | None = None,
        samples_per_pair: int = 1,
        pick: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[SamplingKeywords],
    ) -> Uint8Clip | Uint8Clips:
        """Draws the frames between two pictures.

        Args:
          first: a picture (path, uint8 (H, W, 3) or (H, W, 4), or Pillow image), or a list of them for a batch.
          last: the same; None: every frame has a sketch, and the first picture tells their colours (see `colour`).
          prompt: what happens; one for all, or a list.
          sketches: frame number -> drawing (`Sketch` for another polarity), or a drawing for each frame; for a batch, a
            list of those.
          seed: 0 to 2^32 - 1; the same seed gives the same clip, alone or in a batch, on one device or many; one for
            all, or a list.
          fps: frame rate that the model is told, 1 to 1000; smaller means larger motion (spec section 6.5).
          negative_prompt: what guidance leads away from, instead of from no prompt at all; one for all, or a list.
          draft: a rough version of the clip, a picture for each frame, or a list of those; `strength` below 1 says how
            much of it is drawn anew.
          latents: (T, h, w, C) float, or a list of those: what sampling starts from instead of the seed's noise.
          samples_per_pair: clips of each pair, one after another, with seeds counting up.
          pick: how many of these are returned, the best first by what `picking` measures; all without.
          on_progress: called after every chunk of steps.
          **options: see `SamplingOptions`; those that are not given are the model's own or the published ones.

        Returns:
          uint8 (T, H, W, 3); (B, T, H, W, 3) if lists were given, or more than one sample of the pair is wanted. With
          `alpha`, the last axis has 4: opacity, by which colours are not multiplied.

        Raises:
          UserError: for an unknown option, a setting out of range, or a picture that cannot be used.
        """
        check_not_forked()
        count = checked_count(samples_per_pair)
        picking = None if pick is None else Picking(count, whole_number(pick, "pick"))
        given = make_pairs(first, last, prompt, sketches, seed, fps, negative_prompt, draft, latents)
        pairs = [variation for pair in given for variation in with_variations(pair, count)]
        chosen = make_options({**self.sampling, **options}, ARGUMENTS)
        videos = self.interpolate_pairs(pairs, chosen, picking=picking, on_progress=on_progress)
        return videos if isinstance(first, list | tuple) or count > 1 else videos[0]

    def colour(
        self,
        references: Picture | Sequence[Picture],
        sketches: Series,
        prompt: str = "",
        *,
        seed: int = DEFAULT_SEED,
        fps: int = DEFAULT_FPS,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[SamplingKeywords],
    ) -> Uint8Clip:
        """Colours the sketches of a clip as one or two pictures are coloured.

        Args:
          references: the first frame in colours, or a list of the first and the last.
          sketches: a drawing for each frame, of which some may be blank.
          prompt: as of `interpolate`.
          seed: as of `interpolate`.
          fps: as of `interpolate`.
          on_progress: as of `interpolate`.
          **options: as of `interpolate`.

        Returns:
          uint8 (T, H, W, 3); with `alpha`, the last axis has 4.

        Raises:
          UserError: there are more references, or not as many sketches as frames, or as of `interpolate`.
        """
        ends = references_of(references)
        return self.interpolate(*ends, prompt, list(sketches), seed=seed, fps=fps, on_progress=on_progress, **options)

    def interpolate_sequence(
        self,
        keys: Keys,
        prompt: Prompts = "",
        sketches: Mapping[int, Sketch | Picture] | None = None,
        *,
        timing: TimingLike | Mapping[int | None, TimingLike] = "linear",
        exposure: ExposureLike | Mapping[int | None, ExposureLike] = 1,
        seed: int = DEFAULT_SEED,
        fps: int = DEFAULT_FPS,
        negative_prompt: str = "",
        loop: bool = False,
        exact_keys: bool = True,
        through_keys: bool = False,
        unevenness: float = 0.5,
        batch_size: int | None = None,
        store: Store | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[SamplingKeywords],
    ) -> Uint8Clip:
        """Draws a shot: the frames between any number of keys, each of which is shown once.

        Args:
          keys: frame number -> key drawing, at least two, in the order of their frames, such as {0: a, 24: b, 40: c}.
          prompt: what happens; one for all frames, or frame number -> the prompt from there on, or (first frame, last
            frame) -> the prompt of this span.
          sketches: frame number of the shot -> drawing (`Sketch` for another polarity).
          timing: where the drawings stand between two keys: "linear", "ease-in", "ease-out", "ease-in-out",
            "cubic-bezier(x1,y1,x2,y2)", a chart such as "thirds" or (0.2, 0.5, 0.9); for single gaps by the frame of
            their first keys, {24: "ease-in", None: "linear"}, where None stands for the others.
          exposure: how many frames a drawing is held, or a list of those; for single gaps likewise, {24: 1, None: 2}.
          seed: as of `interpolate`.
          fps: as of `interpolate`; of the model, not of the film.
          negative_prompt: as of `interpolate`.
          loop: whether the last key is the first again, which is then not shown a second time.
          exact_keys: whether keys are shown exactly as drawn, once they have the result's size.
          through_keys: whether the drawings around each key are drawn again, to match the motion across it.
          unevenness: how much shorter than the timing wants a step from drawing to drawing may be, 0.01 to 0.5; less
            needs more clips.
          batch_size: clips that are drawn together; by default as many as there are gaps, up to 8 a device.
          store: keeps clips, so that a shot goes on where it stopped; see `ClipStore`.
          on_progress: called after every chunk of steps, with those of the whole shot.
          **options: see `SamplingOptions`; `frames` is the length of the clips that drawings are chosen from.

        Returns:
          uint8 (frames, H, W, 3), from the first to the last key's frame; without the last in a loop. With `alpha`, the
          last axis has 4.

        Raises:
          UserError: for keys out of order or of other shapes, a timing that does not fit a gap, a sketch or prompt of a
            frame that is not there, or as of `interpolate`.
        """
        check_not_forked()
        how = ShotOptions(exact_keys, through_keys, unevenness)
        shot = Shot(keys, prompt, sketches, timing, exposure, seed, fps, negative_prompt, loop, how)
        return self.draw_shot(
            shot,
            make_options({**self.sampling, **options}, SHOT_ARGUMENTS),
            batch_size=batch_size,
            store=store,
            on_progress=on_progress,
        )

    def draw_shot(
        self,
        shot: Shot | PreparedShot,
        options: SamplingOptions,
        *,
        batch_size: int | None = None,
        store: Store | None = None,
        room: Room = memory,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Uint8Clip:
        """`interpolate_sequence` for a `Shot`; see there.

        Args:
          shot: what to make; one of `prepare_shot` is not read again.
          options: how.
          batch_size: as there.
          store: as there.
          room: where keys and frames lie; `FrameRoom(folder)` puts those of a long shot on the folder's disk.
          on_progress: as there.

        Raises:
          UserError: as there, or there is no room.
        """
        check_not_forked()
        if not isinstance(shot, Shot | PreparedShot):
            raise UserError(f"the shot must be tooncrafter_jax.Shot, not {type(shot).__name__}")
        check_is_options(options)
        options.check(self.config)
        if isinstance(shot, PreparedShot):
            prepared = shot
        else:
            with once():
                prepared = prepare_shot(shot, options, self.config, room)
        if prepared.hints:
            check_sketch_encoder(self.config, self.params)
        return draw_shot(
            prepared,
            options,
            self.sample_prepared,
            devices=len(self.devices),
            batch_size=batch_size,
            store=store,
            room=room,
            on_progress=on_progress,
        )

    def interpolate_pairs(
        self,
        pairs: Sequence[Pair],
        options: SamplingOptions,
        *,
        picking: Picking | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Uint8Clips:
        """`interpolate` for a batch given as `Pair`s.

        Args:
          pairs: B clips to make, at least one.
          options: how, the same for all.
          picking: returns some of the variants of a pair alone, which follow each other in `pairs`.
          on_progress: called after every chunk of steps.

        Returns:
          uint8 (B, T, H, W, 3), or (B, T, H, W, 4) with `options.alpha`.

        Raises:
          UserError: if there are no pairs, a setting is out of range, a picture cannot be used, or there are sketches
            but no sketch encoder.
        """
        check_not_forked()
        check_pairs(pairs, options)
        options.check(self.config)
        if picking is not None:
            picking.check_number(len(pairs))
        with once():
            prepared = [prepare(pair, options, self.config) for pair in pairs]
        if any(pair.hints is not None for pair in prepared):
            check_sketch_encoder(self.config, self.params)
        sampled = sample_all(self.sample_prepared, prepared, options, on_progress)
        clips = [finished(one, pair, options) for one, pair in zip(sampled, prepared, strict=True)]
        return np.stack(clips if picking is None else picked_clips(clips, prepared, picking))
