"""Shots: keys, gaps, sketches and prompts on a shot's own frames, with a sampler that costs nothing; and bad
requests.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from tests.sampling.narrow import NARROW
from tooncrafter_jax import ToonCrafter, UserError
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.visits import visits
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.clip_store import ClipStore
from tooncrafter_jax.sampling.frame_room import FrameRoom
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.sampling.sequence import Shot, ShotOptions, lay_out
from tooncrafter_jax.sampling.shot_drawing import draw_shot, seed_of
from tooncrafter_jax.sampling.shot_preparation import prepare_shot
from tooncrafter_jax.sampling.through_keys import options_of_bridges

SIZE = 64
OPTIONS = SamplingOptions(height=SIZE, width=SIZE, frames=16)
FRAMES = (0, 1, 4, 12, 35, 95)
"""Of keys, with gaps of 1, 3, 8, 23 and 60 frames."""


class Blend:
    """Stands for a model: each clip is a cross-fade of its ends, shifted a little by the seed.

    Attributes:
      batches: the pairs of each batch.
      options: of each batch.
      fails_after: batches that are drawn before the program is killed.
      shift: how much a seed changes a clip.
    """

    def __init__(self, fails_after: int = 10**6, shift: float = 0.01) -> None:
        self.shift = shift
        self.batches: list[list[PreparedPair]] = []
        self.options: list[SamplingOptions] = []
        self.fails_after = fails_after

    def __call__(self, pairs: Sequence[PreparedPair], options: SamplingOptions, tell: Any) -> np.ndarray:
        if len(self.batches) >= self.fails_after:
            raise KeyboardInterrupt
        self.batches.append(list(pairs))
        self.options.append(options)
        if tell is not None:
            steps = max(1, round(options.strength * options.steps))
            tell(Progress(steps, steps, lambda: np.zeros(0)))
        times = np.linspace(0, 1, options.frames, dtype=np.float32)[:, None, None, None]
        clips = [(1 - times) * pair.ends[0] + times * pair.ends[1] + self.shift * (pair.seed % 7) for pair in pairs]
        return np.stack(clips)

    @property
    def pairs(self) -> list[PreparedPair]:
        """All that were drawn, copies that filled a batch left out."""
        seen: dict[int, PreparedPair] = {}
        for pair in (pair for batch in self.batches for pair in batch):
            seen.setdefault(id(pair), pair)
        return list(seen.values())


def flat(value: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def noisy(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def sketch(row: int = 32) -> np.ndarray:
    lines = np.full((SIZE, SIZE, 3), 255, np.uint8)
    lines[row : row + 3, 8:-8] = 0
    return lines


KEYS = {frame: noisy(frame) for frame in FRAMES}


def draw(shot: Shot, sample: Blend | None = None, **kw: Any) -> np.ndarray:
    return draw_shot(prepare_shot(shot, OPTIONS, NARROW), OPTIONS, sample or Blend(), **kw)


def changes(video: np.ndarray) -> list[int]:
    """The frames that show another drawing than the one before."""
    return [frame for frame in range(1, len(video)) if not np.array_equal(video[frame], video[frame - 1])]


def test_every_key_is_on_its_frame_pixel_by_pixel_and_nowhere_else() -> None:
    video = draw(Shot(KEYS, timing={12: "ease-in-out"}))
    assert video.shape == (96, SIZE, SIZE, 3)
    for frame, key in KEYS.items():
        assert [i for i in range(96) if np.array_equal(video[i], key)] == [frame]


def test_on_ones_no_frame_is_the_one_before() -> None:
    assert changes(draw(Shot(KEYS))) == list(range(1, 96))


def test_on_twos_drawings_are_held_from_each_key_on() -> None:
    expected = {frame for start, end in pairwise(FRAMES) for frame in range(start, end, 2)}
    assert changes(draw(Shot(KEYS, exposure=2))) == sorted(expected - {0} | {95})


def test_exposure_and_timing_of_one_gap_leave_the_others() -> None:
    video = draw(Shot({0: flat(0), 8: flat(80), 16: flat(160)}, exposure={8: 4}, timing={0: (0.5,), None: "linear"}))
    assert changes(video) == [4, 8, 12, 16]
    assert abs(int(video[4, 0, 0, 0]) - 40) < 10


def test_a_shot_may_begin_at_any_frame_and_drawings_move_evenly() -> None:
    video = draw(Shot({100: flat(0), 160: flat(240)}), Blend(shift=0))
    assert len(video) == 61
    levels = video[:, 0, 0, 0].astype(int)
    assert np.abs(levels - np.linspace(0, 240, 61)).max() <= 240 / 15
    assert (np.diff(levels) > 0).all()


def test_gaps_are_drawn_together_and_every_batch_has_the_same_size() -> None:
    sample = Blend()
    heard: list[Progress] = []
    draw(Shot(KEYS), sample, on_progress=heard.append)
    assert {len(batch) for batch in sample.batches} == {4}, "of five gaps, one has no frame between"
    assert [p.done for p in heard] == [OPTIONS.steps * (i + 1) for i in range(len(sample.batches))]
    assert heard[-1].done == heard[-1].total


def test_the_batch_changes_nothing() -> None:
    one, three = Blend(), Blend()
    shot = Shot(KEYS, seed=3, exposure=2, timing="ease-in")
    np.testing.assert_array_equal(draw(shot, one, batch_size=1), draw(shot, three, batch_size=3))
    assert {len(batch) for batch in one.batches} == {1}
    assert {pair.seed for pair in one.pairs} == {pair.seed for pair in three.pairs}


def test_clips_that_are_kept_are_not_drawn_again(tmp_path: Path) -> None:
    shot = Shot(KEYS, seed=3)
    with pytest.raises(KeyboardInterrupt):
        draw(shot, Blend(fails_after=2), store=ClipStore(tmp_path / "clips", {}))
    rest, heard = Blend(), []
    found = draw(shot, rest, store=ClipStore(tmp_path / "clips", {}), on_progress=heard.append)
    whole = Blend()
    np.testing.assert_array_equal(found, draw(shot, whole))
    assert len(rest.batches) == len(whole.batches) - 2
    assert heard[-1].done == heard[-1].total == len(rest.batches) * OPTIONS.steps
    other = Blend()
    draw(shot, other, store=ClipStore(tmp_path / "clips", {"model": "another"}))
    assert len(other.batches) == len(whole.batches)


def test_clips_have_seeds_of_their_own_that_later_keys_do_not_change() -> None:
    whole, part, other = Blend(), Blend(), Blend()
    draw(Shot(KEYS, seed=5), whole)
    draw(Shot(dict(list(KEYS.items())[:4]), seed=5), part)
    draw(Shot(KEYS, seed=6), other)
    seeds = [pair.seed for pair in whole.pairs]
    assert len(set(seeds)) == len(seeds)
    assert {pair.seed for pair in part.pairs} < set(seeds)
    assert not set(seeds) & {pair.seed for pair in other.pairs}
    assert seed_of(123, 0) == 123
    assert 0 <= seed_of(2**32 - 1, 5, (0, 3)) < 2**32


def test_a_sketch_guides_the_drawing_that_its_frame_shows_in_every_clip_around_it() -> None:
    shot = Shot(KEYS, sketches={6: sketch(10), 60: sketch(40)}, exposure=2, timing="ease-in-out")
    sample = Blend()
    with collected() as notes:
        draw(shot, sample)
    assert [one for one in notes if "held there" in one] == [
        "the sketch for frame 60 guides the drawing that is held there, from frame 59 on"
    ]
    layout = lay_out(shot, OPTIONS)
    guided = [pair for pair in sample.pairs if pair.hints is not None]
    short = [pair for pair in guided if np.array_equal(pair.ends[0], KEYS[4] / np.float32(255) * 2 - 1)]
    assert len(short) == 1
    assert short[0].hints is not None
    assert layout.gaps[2].clip is not None
    assert np.flatnonzero(short[0].hints.any(axis=(1, 2, 3))).tolist() == [layout.gaps[2].clip.shown[0]]
    assert len(guided) >= 3, "the long gap's clip, and the part that shows the drawing"


def test_two_sketches_of_one_clip_guide_two_frames() -> None:
    sample = Blend()
    draw(Shot({0: flat(0), 15: flat(100)}, sketches={5: sketch(10), 11: sketch(40)}), sample)
    hints = sample.pairs[0].hints
    assert hints is not None
    assert np.flatnonzero(hints.any(axis=(1, 2, 3))).tolist() == [5, 11]
    assert hints[5, 11].any()
    assert hints[11, 41].any()


def test_prompts_count_for_their_frames() -> None:
    sample = Blend()
    prompts = {(0, 12): "walks", 13: "runs", (70, 95): "jumps"}
    with collected() as notes:
        draw(Shot(KEYS, prompts), sample)
    first_level = [pair.prompt for pair in sample.batches[0]]
    assert first_level == ["walks", "walks", "runs", "runs"]
    assert {pair.prompt for pair in sample.pairs} == {"walks", "runs", "jumps"}
    assert any("frames 35 and 95" in one and "'runs'" in one for one in notes)


def test_frames_without_a_prompt_have_none() -> None:
    sample = Blend()
    draw(Shot({0: flat(0), 10: flat(99), 20: flat(0)}, {(10, 20): "runs"}, negative_prompt="blurry"), sample)
    assert [pair.prompt for pair in sample.pairs] == ["", "runs"]
    assert {pair.negative_prompt for pair in sample.pairs} == {"blurry"}


def test_a_loop_ends_before_its_first_key_comes_again() -> None:
    video = draw(Shot({0: flat(0), 10: flat(90), 20: flat(0)}, loop=True))
    assert len(video) == 20
    assert video[0].max() == 0
    assert video[19].max() > 0


def test_keys_as_they_are_decoded_if_wanted() -> None:
    video = draw(Shot({0: flat(10), 8: flat(90)}, seed=6, options=ShotOptions(exact_keys=False)))
    assert (video[0, 0, 0, 0], video[8, 0, 0, 0]) == (int(10 + 6 / 100 * 127.5), int(90 + 6 / 100 * 127.5))


def test_decoded_keys_are_the_same_where_some_clips_were_drawn_before(tmp_path: Path) -> None:
    """A key is the end of one clip and the beginning of another, which decode it in different ways."""
    shot = Shot(KEYS, seed=3, options=ShotOptions(exact_keys=False))
    whole = draw(shot)
    for kept in range(1, 4):
        folder = tmp_path / str(kept)
        with pytest.raises(KeyboardInterrupt):
            draw(shot, Blend(fails_after=kept), store=ClipStore(folder, {}), batch_size=1)
        np.testing.assert_array_equal(draw(shot, store=ClipStore(folder, {}), batch_size=1), whole)


def test_keys_without_frames_between_are_the_shot() -> None:
    sample = Blend()
    video = draw(Shot([(3, flat(1)), (4, flat(2)), (5, flat(3))], options=ShotOptions(exact_keys=False)), sample)
    assert [int(frame[0, 0, 0]) for frame in video] == [1, 2, 3]
    assert not sample.batches


def test_a_loop_of_one_drawing_has_no_frame_twice() -> None:
    """Its only gap leads from a key to itself, so that the clip is one of a motion that ends where it begins."""
    video = draw(Shot({2: flat(7), 12: flat(7)}, loop=True), Blend(shift=0))
    assert len(video) == 10
    video = draw(Shot({2: flat(7), 5: flat(9), 6: flat(7)}, loop=True, options=ShotOptions(exact_keys=False)))
    assert len(video) == 4


def test_a_long_shot_is_not_held_in_memory(tmp_path: Path) -> None:
    """4,000 frames with 21 keys, drawn through, are 12 MB on the disk, where drafts of clips through keys lie too."""
    options = SamplingOptions(height=32, width=32, frames=16)
    keys = {200 * number: noisy(number, 32) for number in range(21)}
    times = np.linspace(0, 1, 16, dtype=np.float32)[:, None, None, None]

    def blend(pairs: Sequence[PreparedPair], options: SamplingOptions, tell: Any) -> np.ndarray:
        return np.stack([(1 - times) * pair.ends[0] + times * pair.ends[1] for pair in pairs])

    room, shot = FrameRoom(tmp_path, in_memory=0), Shot(keys, options=ShotOptions(through_keys=True))
    prepared = prepare_shot(shot, options, NARROW, room)
    tracemalloc.start()
    try:
        video = draw_shot(prepared, options, blend, batch_size=1, room=room)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(video, np.memmap) and video.nbytes > 12e6
    assert peak < video.nbytes / 3
    assert not list(tmp_path.iterdir()), "files without names"
    np.testing.assert_array_equal(video[::200], list(keys.values()))


def test_keys_of_another_size_are_brought_to_the_shots(tmp_path: Path) -> None:
    Image.fromarray(noisy(1, 128)).save(tmp_path / "large.png")
    with collected() as notes:
        video = draw(Shot({0: noisy(0), 4: tmp_path / "large.png"}))
    assert video.shape == (5, SIZE, SIZE, 3)
    assert any("large.png' is 128 x 128 pixels, the key on frame 0 64 x 64" in one for one in notes)


def test_frames_around_keys_are_drawn_again_from_both_sides() -> None:
    keys = {0: flat(0), 8: flat(80), 16: flat(240)}
    shot = Shot(keys, options=ShotOptions(through_keys=True))
    sample, heard = Blend(), []
    through = draw(shot, sample, on_progress=heard.append)
    plain = draw(Shot(keys))
    assert (through[8] == 80).all(), "the key stays"
    assert sample.options[-1].strength < 1
    draft = sample.batches[-1][0].draft
    assert draft is not None
    np.testing.assert_array_equal(draft[7], keys[8] / np.float32(255) * 2 - 1)
    assert (np.diff(draft[:, 0, 0, 0]) >= 0).all(), "the draft goes through the key in order"
    assert np.array_equal(draft[[0, -1]], sample.batches[-1][0].ends)
    assert [i for i in range(17) if not np.array_equal(through[i], plain[i])] == [6, 7, 9, 10]
    assert heard[-1].done == heard[-1].total


@pytest.mark.parametrize(
    ("options", "steps", "timesteps"),
    [
        (SamplingOptions(steps=1), 5, None),
        (SamplingOptions(steps=30), 30, None),
        (SamplingOptions(steps=1, timesteps="999"), 5, None),
        (SamplingOptions(steps=30, timesteps="999,500"), 5, None),
        (SamplingOptions(timesteps="999,800,600,400,200"), 50, "999,800,600,400,200"),
    ],
)
def test_a_clip_through_a_key_takes_steps_enough_to_see_its_draft(
    options: SamplingOptions, steps: int, timesteps: str | None
) -> None:
    found = options_of_bridges(options)
    assert (found.steps, found.timesteps) == (steps, timesteps) and found.strength < 1
    assert len(visits(NoiseSchedule(), found.solver_options).timestep) >= 3


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (2, 0)])
def test_a_model_of_one_step_may_be_worse_through_keys(steps: int, count: int) -> None:
    shot = Shot({0: flat(0), 40: flat(120), 80: flat(240)}, options=ShotOptions(through_keys=True))
    with collected() as notes:
        lay_out(shot, SamplingOptions(steps=steps))
    assert sum("this model is sampled in one" in sentence for sentence in notes) == count


@pytest.mark.parametrize("exposure", [1, 2])
def test_the_draft_of_a_clip_through_a_key_is_of_the_frames_of_all_levels(exposure: int) -> None:
    """Its frames stand where the drawings that they become stand: from three drawings before the key to three after."""
    sample = Blend(shift=0)
    shot = Shot({0: flat(0), 40: flat(120), 80: flat(240)}, exposure=exposure, options=ShotOptions(through_keys=True))
    video = draw(shot, sample)
    draft = sample.batches[-1][0].draft
    assert draft is not None
    levels = (draft[:, 0, 0, 0] + 1) * 127.5
    assert (np.diff(levels) >= 0).all() and levels[7] == pytest.approx(120, abs=0.01)
    assert levels[[0, 15]] == pytest.approx([120 - 9 * exposure, 120 + 9 * exposure], abs=3)
    assert (np.diff(video[:, 0, 0, 0].astype(int)) >= 0).all()


def test_a_loop_is_drawn_through_its_seam() -> None:
    keys = {0: flat(0), 8: flat(80), 16: flat(0)}
    through, plain = draw(Shot(keys, loop=True, options=ShotOptions(through_keys=True))), draw(Shot(keys, loop=True))
    assert [i for i in range(16) if not np.array_equal(through[i], plain[i])] == [1, 2, 6, 7, 9, 10, 14, 15]


def test_keys_without_room_around_them_are_not_drawn_through_which_is_said() -> None:
    with collected() as notes:
        draw(Shot(KEYS, exposure=2, options=ShotOptions(through_keys=True)))
    assert any(one.startswith("the keys on frames 1, 4 are not drawn through") for one in notes)
    with collected() as notes:
        draw(Shot({frame: flat(frame) for frame in range(100)}, options=ShotOptions(through_keys=True)))
    assert any("on frames 1, 2, 3, 4, 5, 6, 7, 8, ... are not" in one for one in notes), "not all ninety-eight"


A, B = flat(0), flat(99)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"keys": {}}, "at least two keys, not 0"),
    ({"keys": {0: A}}, "at least two keys, not 1"),
    ({"keys": {0: A, 40: B, 24: A}}, "the key on frame 24 comes after that on frame 40"),
    ({"keys": [(0, A), (24, B), (24, A)]}, "two keys on frame 24"),
    ({"keys": {-1: A, 24: B}}, "numbered from 0"),
    ({"keys": {0: A, "24": B}}, "whole number"),
    ({"keys": {0: A, 2.5: B}}, "whole number"),
    ({"keys": [A, B]}, "frame numbers with pictures"),
    ({"keys": "a.png"}, "mapping of frame numbers"),
    ({"keys": {0: A, 10_000: B}}, "10,001 frames: at most"),
    ({"keys": {0: A, 24: noisy(0)[:32]}}, "different shapes and cannot line up"),
    ({"keys": {0: A, 24: A.astype(float)}}, "the key on frame 24 must be uint8"),
    ({"keys": {0: A, 24: "missing.png"}}, "'missing.png' does not exist"),
    ({"timing": "bounce"}, "none of linear"),
    ({"timing": {8: "ease-in"}}, "where no gap begins"),
    ({"timing": {24: "ease-in"}}, "gaps begin at the keys on frames 0"),
    ({"timing": {0: "bounce"}}, "the timing of the gap after frame 0"),
    ({"timing": "quarters", "exposure": 12}, "leaves room for 1 drawing"),
    ({"exposure": 0}, "for 0 frames"),
    ({"exposure": {3: 2}}, "an exposure for the gap after frame 3"),
    ({"sketches": {25: sketch()}}, "no frame 25 for a sketch: the shot has frames 0 to 24"),
    ({"sketches": {24: sketch()}}, "is for a key"),
    ({"sketches": {1: sketch()}, "exposure": 2}, "the key on frame 0 is held there, until frame 2"),
    ({"sketches": {2: sketch(), 3: sketch()}, "exposure": 2}, "are for one drawing, which is held from frame 2"),
    ({"sketches": [sketch()]}, "mapping of frame numbers"),
    ({"sketches": {4: sketch()[:32]}}, "the sketch for frame 4 is 64 x 32"),
    ({"prompt": {(0, 12): "a", (12, 24): "b"}}, "two prompts are for frame 12"),
    ({"prompt": {30: "a"}}, "for frame 30 on, but the shot has frames 0 to 24"),
    ({"prompt": {(0, 5, 9): "a"}}, "its first and last frame"),
    ({"prompt": 7}, "a prompt must be text"),
    ({"prompt": {0: 7}}, "a prompt must be text"),
    ({"seed": -1}, "the seed"),
    ({"fps": 0}, "fps"),
    ({"loop": True}, "a loop ends with its first key"),
    ({"loop": "yes"}, "must be True or False"),
    ({"options": ShotOptions(unevenness=0.0)}, "unevenness"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said for _, said in BAD])
def test_what_cannot_be_drawn_ends_in_a_sentence(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"keys": {0: A, 24: B}, **change}
    with pytest.raises(UserError) as caught:
        prepare_shot(Shot(**given), OPTIONS, NARROW)
    assert said in str(caught.value)
    assert not str(caught.value).endswith(".")


@pytest.mark.usefixtures("unchecked_types")
def test_options_of_a_wrong_type_end_in_a_sentence() -> None:
    text, word, mapping = cast(Any, "0.3"), cast(Any, "no"), cast(Any, {"exact_keys": False})
    for options, said in (
        (ShotOptions(unevenness=text), "the shot options.unevenness must be of type float, not '0.3'"),
        (ShotOptions(exact_keys=word), "the shot options.exact_keys must be of type bool, not 'no'"),
        (mapping, "the options of a shot must be tooncrafter_jax.ShotOptions, not dict"),
    ):
        with pytest.raises(UserError, match=said):
            lay_out(Shot({0: A, 24: B}, options=options), OPTIONS)
    toon = ToonCrafter(NARROW, {}, dtype="float32")
    with pytest.raises(UserError, match="the options must be tooncrafter_jax.SamplingOptions, not dict"):
        toon.draw_shot(Shot({0: A, 24: B}), mapping)
    with pytest.raises(UserError, match="the shot must be tooncrafter_jax.Shot, not dict"):
        toon.draw_shot(mapping, OPTIONS)


def test_a_strength_or_a_batch_of_nothing_ends_in_a_sentence() -> None:
    with pytest.raises(UserError, match="a shot has none"):
        lay_out(Shot({0: A, 24: B}), SamplingOptions(strength=0.5))
    with pytest.raises(UserError, match="drawn over one background"):
        lay_out(Shot({0: A, 24: B}), SamplingOptions(alpha=True, two_backgrounds=True))
    with pytest.raises(UserError, match="at least 1, not 0"):
        draw(Shot({0: A, 24: B}), batch_size=0)
    short = SamplingOptions(height=SIZE, width=SIZE, frames=6)
    with pytest.raises(UserError, match="at least 8 frames, not 6"):
        lay_out(Shot({0: A, 8: B, 16: A}, options=ShotOptions(through_keys=True)), short)
