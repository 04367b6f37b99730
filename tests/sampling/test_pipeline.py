"""The whole pipeline on a narrow model: reproducibility, devices, compile counts, dtypes, extremes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from tests.io.drawn_cels import disc
from tests.reference import golden, tiny_params
from tests.sampling.narrow import SETTINGS, assert_nearly_equal, make_toon
from tooncrafter_jax import Pair, Progress, SamplingOptions, Sketch, ToonCrafter, UserError
from tooncrafter_jax.models.configuration import COMPONENTS, tiny
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.sampling_mesh import prime_factors, sampling_mesh
from tooncrafter_jax.sampling.second_pass import second_pass_frames
from tooncrafter_jax.typing import Device

pytestmark = pytest.mark.heavy


def make_tiny(devices: list[Device], dtype: str) -> ToonCrafter:
    params = jax.device_put({name: tiny_params(name) for name in COMPONENTS}, devices[0])
    return ToonCrafter(tiny(), params, dtype=dtype, devices=devices)


@pytest.fixture(scope="module")
def toon(devices: list[Device]) -> ToonCrafter:
    """The narrow model on one device."""
    return make_toon(devices[:1])


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Two drawings."""
    arrays = golden("pipeline_inference")
    return arrays["image_first"], arrays["image_last"]


@pytest.fixture(scope="module")
def clip(toon: ToonCrafter, pictures: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """One clip that others are compared with."""
    return toon.interpolate(pictures[0], pictures[1], "walking man", seed=5, **SETTINGS)


def test_a_clip_has_the_right_form(clip: np.ndarray) -> None:
    assert clip.shape == (16, 64, 64, 3)
    assert clip.dtype == np.uint8
    assert clip.std() > 10, "the frames are not flat"


@pytest.mark.parametrize("twice", [False, True])
def test_cels_become_cels_by_the_same_programs(
    toon: ToonCrafter, clip: np.ndarray, compilations: Callable[[], int], twice: bool
) -> None:
    """The keys come back bit by bit, and the background is no part of what is compiled."""
    first, last = (disc(at)[16:80, 16:80] for at in (0.3, 0.5))
    cels = toon.interpolate(first, last, "walking man", seed=5, alpha=True, two_backgrounds=twice, **SETTINGS)
    assert compilations() == 0
    assert cels.shape == (*clip.shape[:3], 4) and cels.dtype == np.uint8
    np.testing.assert_array_equal(cels[[0, -1]], [first, last])


def test_the_same_seed_gives_the_same_bits(toon: ToonCrafter, pictures: Any, clip: np.ndarray) -> None:
    again = toon.interpolate(pictures[0], pictures[1], "walking man", seed=5, **SETTINGS)
    np.testing.assert_array_equal(again, clip)


@pytest.mark.gate
def test_one_compile_serves_every_setting_and_each_changes_the_clip(
    toon: ToonCrafter, pictures: Any, clip: np.ndarray, compilations: Callable[[], int]
) -> None:
    """Five seeds, prompts, frame rates, guidance scales and eta, and two numbers of steps: nothing is compiled
    again.
    """
    base = {"prompt": "walking man", "seed": 5, **SETTINGS}
    changes: list[dict[str, Any]] = [
        {"seed": 6},
        {"prompt": "a cat"},
        {"fps": 30, "seed": 7},
        {"guidance_scale": 3.0, "guidance_rescale": 0.2, "seed": 8, "prompt": "two"},
        {"eta": 0.0, "steps": 4, "guidance_scale": 9.0, "seed": 9, "prompt": "three"},
        {"steps": 2, "guidance_scale": 1.5, "seed": 10, "prompt": "four"},
    ]
    for change in changes:
        other = toon.interpolate(pictures[0], pictures[1], **{**base, **change})
        assert (other != clip).mean() > 0.01, change
    assert compilations() == 0, "the clip before has compiled all that is needed"


@pytest.mark.gate
def test_a_clip_in_a_batch_is_the_clip_alone(toon: ToonCrafter, pictures: Any, clip: np.ndarray) -> None:
    first, last = pictures
    batch = toon.interpolate(
        [last, first, first], [first, last, first], ["a", "walking man", "b"], seed=[1, 5, 9], **SETTINGS
    )
    assert batch.shape == (3, 16, 64, 64, 3)
    assert_nearly_equal(batch[1], clip)


@pytest.mark.gate
def test_a_picture_of_two_pairs_is_encoded_once(toon: ToonCrafter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pairs of four pictures, one pair at a time: two calls of the encoder for two pictures each, not three; and
    one a pair for what the decoder wants of them, which is not kept. What was encoded before is known.
    """
    keys = [np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8) for number in range(4)]
    sampler, calls = toon.sampler(1, 16), []
    compiled = sampler.encode

    def encode(*arguments: Any) -> Any:
        calls.append(arguments)
        return compiled(*arguments)

    monkeypatch.setattr(sampler, "encode", encode)
    monkeypatch.setattr(toon.sampler(6, 16), "denoise", lambda params, x, *_, **__: (x, None))
    toon.interpolate(keys[:-1], keys[1:], seed=[1, 5, 9], **SETTINGS)
    assert len(calls) == 2 + 3
    toon.interpolate(keys[:-1], keys[1:], seed=[2, 6, 10], **SETTINGS)
    assert len(calls) == 2 + 3 + 3


@pytest.mark.gate
def test_no_references_wait_on_the_device_while_a_batch_is_denoised(
    toon: ToonCrafter, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pairs on one device are three groups: what the decoder wants of them would grow with the batch."""
    first, last = pictures
    sampler, seen = toon.sampler(6, 16), []

    def denoise(params: Any, x: jax.Array, *_: Any, **__: Any) -> tuple[jax.Array, None]:
        seen.append([a.shape for a in jax.live_arrays() if a.ndim == 5 and a.shape[2:4] == (64, 64)])
        return x, None

    monkeypatch.setattr(sampler, "denoise", denoise)
    gc.collect()
    batch = toon.interpolate([last, first, first], [first, last, first], seed=[1, 5, 9], **SETTINGS)
    assert batch.shape == (3, 16, 64, 64, 3)
    assert seen == [[], []]


@pytest.mark.gate
def test_guidance_leads_away_from_a_negative_prompt_and_an_empty_one_is_no_prompt(
    toon: ToonCrafter, pictures: Any, clip: np.ndarray
) -> None:
    first, last = pictures
    batch = toon.interpolate(
        [first, first], last, "walking man", seed=5, negative_prompt=["", "walking man"], **SETTINGS
    )
    assert_nearly_equal(batch[0], clip)
    assert (batch[1] != clip).mean() > 0.01


@pytest.mark.gate
def test_samples_of_a_pair_have_seeds_that_count_up(toon: ToonCrafter, pictures: Any, clip: np.ndarray) -> None:
    videos = toon.interpolate(pictures[0], pictures[1], "walking man", seed=4, samples_per_pair=2, **SETTINGS)
    assert videos.shape == (2, *clip.shape)
    assert_nearly_equal(videos[1], clip)
    assert (videos[0] != clip).mean() > 0.01


@pytest.mark.gate
def test_a_picked_variant_is_the_clip_of_its_seed(toon: ToonCrafter, pictures: Any) -> None:
    settings: dict[str, Any] = {"seed": 4, "samples_per_pair": 2, **SETTINGS}
    both = toon.interpolate(pictures[0], pictures[1], "walking man", **settings)
    with collected() as said:
        picked = toon.interpolate(pictures[0], pictures[1], "walking man", pick=1, **settings)
    said = [one for one in said if one.startswith("seed")]
    assert len(said) == 2 and said[0].endswith(", kept") and said[1].endswith("not kept")
    assert picked.shape == (1, *both.shape[1:])
    np.testing.assert_array_equal(picked[0], both[int("seed 5" in said[0])])


def test_latents_take_the_place_of_the_noise_of_the_seed(toon: ToonCrafter, pictures: Any, clip: np.ndarray) -> None:
    sampler = toon.sampler(1, 16)
    noise = np.asarray(sampler.initial_noise(np.asarray([5], np.uint32), frames=16, frame_shape=(8, 8, 4)))[0]
    given = toon.interpolate(pictures[0], pictures[1], "walking man", seed=5, latents=noise, **SETTINGS)
    np.testing.assert_array_equal(given, clip)
    assert (
        toon.interpolate(pictures[0], pictures[1], "walking man", seed=5, latents=noise[::-1], **SETTINGS) != clip
    ).mean() > 0.01
    with pytest.raises(
        UserError, match=r"latents must be floats of the shape \(16, 8, 8, 4\), not float32 \(16, 8, 8\)"
    ):
        toon.interpolate(pictures[0], pictures[1], latents=noise[..., 0], **SETTINGS)
    with pytest.raises(UserError, match="NaN or infinite"):
        toon.interpolate(pictures[0], pictures[1], latents=noise * np.inf, **SETTINGS)


@pytest.mark.gate
def test_a_draft_is_drawn_anew_as_far_as_the_strength_says(toon: ToonCrafter, pictures: Any) -> None:
    """With few steps left the noise hardly matters, and the draft does; with all of them it is the other way round."""
    rows = np.arange(64)[:, None, None]
    draft = [np.uint8((rows + 8 * number) % 64 < 24) * np.full((64, 128, 3), 255, np.uint8) for number in range(16)]
    moved = np.roll(np.stack(draft), 4, axis=0)
    noise = np.random.default_rng(0).normal(size=(2, 16, 8, 8, 4))

    def drawn(strength: float, noise: np.ndarray, frames: Any = draft) -> np.ndarray:
        options: dict[str, Any] = SETTINGS | {"steps": 1000, "strength": strength, "eta": 0.0}
        return toon.interpolate(pictures[0], pictures[1], draft=frames, latents=noise, **options).astype(float)

    def influences(strength: float) -> tuple[float, float]:
        clip = drawn(strength, noise[0])
        changed = drawn(strength, noise[1]), drawn(strength, noise[0], moved)
        by_noise, by_draft = (float(np.abs(clip - other).mean()) for other in changed)
        return by_noise, by_draft

    kept, redrawn = influences(0.001), influences(0.004)
    print(f"other noise, other draft: one step {kept}, four steps {redrawn}")
    assert kept[0] < 0.5 * kept[1]
    assert kept[0] / kept[1] < redrawn[0] / redrawn[1]


def test_a_draft_that_cannot_be_used_is_refused(toon: ToonCrafter, pictures: Any) -> None:
    first, last = pictures
    for wrong, phrase in (
        ({"draft": [first] * 16}, "at strength 1 everything is drawn anew"),
        ({"strength": 0.5}, "how much of a draft is drawn anew, but there is none"),
        ({"draft": [first] * 4, "strength": 0.5}, "the draft has 4 pictures, but the clip 16 frames"),
        ({"draft": [first] * 15 + [first[:, :20]], "strength": 0.5}, "picture 15 of the draft is 20 x"),
        ({"draft": ["gone.png"] * 16, "strength": 0.5}, "gone.png"),
    ):
        options: Any = {**SETTINGS, **wrong}
        with pytest.raises(UserError, match=phrase):
            toon.interpolate(first, last, **options)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8])
def test_batches_on_several_devices(pictures: Any, clip: np.ndarray, devices: list[Device], count: int) -> None:
    first, last = pictures
    toon = make_toon(devices[:count])
    assert_nearly_equal(toon.interpolate(first, last, "walking man", seed=5, **SETTINGS), clip)
    batch = toon.interpolate(
        [last, first, first], [first, last, first], ["a", "walking man", "b"], seed=[1, 5, 9], **SETTINGS
    )
    assert_nearly_equal(batch[1], clip)
    reusing = {"seed": 5, "reuse": "2", **SETTINGS}
    assert_nearly_equal(
        toon.interpolate(first, last, **reusing), make_toon(devices[:1]).interpolate(first, last, **reusing)
    )


@pytest.mark.gate
def test_sketches_guide_and_a_zero_scale_does_not(toon: ToonCrafter, pictures: Any, clip: np.ndarray) -> None:
    sketch = np.full((64, 128, 3), 255, np.uint8)
    sketch[20:24, 30:90] = 0
    settings = {"prompt": "walking man", "seed": 5, **SETTINGS}
    with_sketch = toon.interpolate(pictures[0], pictures[1], sketches={7: sketch}, **settings)
    assert (with_sketch != clip).mean() > 0.01
    inverted = toon.interpolate(
        pictures[0], pictures[1], sketches={7: Sketch(255 - sketch, dark_lines=False)}, **settings
    )
    np.testing.assert_array_equal(inverted, with_sketch)
    assert_nearly_equal(
        toon.interpolate(pictures[0], pictures[1], sketches={7: sketch}, control_scale=0.0, **settings), clip
    )


@pytest.mark.gate
def test_sketches_are_coloured_by_one_reference_or_two(
    toon: ToonCrafter, pictures: Any, compilations: Callable[[], int]
) -> None:
    first, last = pictures
    sketches = [np.full((64, 128, 3), 255, np.uint8) for _ in range(16)]
    for frame, sketch in enumerate(sketches):
        sketch[2 * frame : 2 * frame + 4, 30:90] = 0
    settings: dict[str, Any] = {"seed": 5, **SETTINGS}
    two = toon.colour([first, last], sketches, **settings)
    np.testing.assert_array_equal(two, toon.interpolate(first, last, sketches=dict(enumerate(sketches)), **settings))
    one = toon.colour(first, sketches, **settings)
    before = compilations()
    assert one.shape == two.shape and (one != two).mean() > 0.01
    twice = toon.colour([first, first], sketches, **settings)
    assert (one != twice).mean() > 0.01  # the end is open, and not the first picture once more
    assert (toon.colour(last, sketches, **settings) != one).mean() > 0.01
    assert compilations() == before


@pytest.mark.gate
def test_progress_and_preview(toon: ToonCrafter, pictures: Any, clip: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    previews = []

    def on_progress(progress: Progress) -> None:
        seen.append((progress.done, progress.total))
        if progress.done == 2:
            previews.append(progress.preview())

    video = toon.interpolate(pictures[0], pictures[1], "walking man", seed=5, on_progress=on_progress, **SETTINGS)
    assert seen == [(2, 3), (3, 3)]
    assert previews[0].shape == (1, *video.shape)


@pytest.mark.slow
def test_bfloat16_is_near_float32(pictures: Any, devices: list[Device]) -> None:
    """At least 28 dB: 3 steps with guidance 7.5 amplify bf16's 3 digits; a wrong layer gives below 15 dB."""
    rounded, exact = (
        make_tiny(devices[:1], dtype).interpolate(pictures[0], pictures[1], "walking man", seed=5, **SETTINGS)
        for dtype in ("bfloat16", "float32")
    )
    error = np.mean((rounded.astype(float) - exact.astype(float)) ** 2)
    psnr = 10 * np.log10(255**2 / error)
    print(f"bfloat16 against float32: {psnr:.1f} dB")
    assert psnr > 28


@pytest.mark.gate
def test_extreme_pictures_give_finite_frames(toon: ToonCrafter) -> None:
    """`interpolate` refuses NaN, so that coming back is the proof."""
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    checkerboard = np.repeat((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    for first, last in ((black, black), (white, black), (checkerboard, 255 - checkerboard)):
        video = toon.interpolate(first, last, **SETTINGS)
        assert video.shape == (16, 64, 64, 3)


def test_mistakes_are_named(pictures: Any, devices: list[Device]) -> None:
    first, last = pictures
    toon = ToonCrafter(tiny(), {}, dtype="float32", devices=devices[:1])
    with pytest.raises(UserError, match="no key 'step'; did you mean 'steps'"):
        toon.interpolate(first, last, **{"step": 3})  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(UserError, match="2 first pictures but 1 last"):
        toon.interpolate([first, first], [last])
    with pytest.raises(UserError, match="multiple of 64 pixels, not 100: try 128"):
        toon.interpolate(first, last, height=100)
    with pytest.raises(UserError, match="no frame 16"):
        toon.interpolate(first, last, sketches={16: first}, **SETTINGS)


@pytest.mark.usefixtures("unchecked_types")
def test_calls_in_the_words_of_other_programs_end_in_sentences(toon: ToonCrafter, pictures: Any) -> None:
    first, last = pictures
    for wrong, phrase in (
        ({"sketches": [first]}, "there are 1 sketches for the 16 frames of the clip"),
        ({"sketches": 3}, "sketches must be a mapping of frame numbers to drawings"),
        ({"num_inference_steps": 5}, "no key 'num_inference_steps': it is 'steps' here"),
        ({"negative_prompt": 5}, "a negative prompt must be text, not int"),
        ({"samples_per_pair": 0}, "samples_per_pair must be at least 1, not 0"),
        ({"ddim_steps": 5}, "it is 'steps' here"),
        ({"steps": "5"}, "steps must be of type int, not '5'"),
        ({"height": 2**40}, "at most 4096 pixels"),
    ):
        options: Any = wrong
        with pytest.raises(UserError, match=phrase):
            toon.interpolate(first, last, **options)


@pytest.mark.usefixtures("unchecked_types")
def test_pairs_and_options_of_a_wrong_type_are_refused(toon: ToonCrafter, pictures: Any) -> None:
    wrong: Any
    for wrong in (Pair(*pictures), [pictures], "pair", None):
        with pytest.raises(UserError, match="pairs must be a list"):
            toon.interpolate_pairs(wrong, SamplingOptions())
    with pytest.raises(UserError, match="options must be tooncrafter_jax.SamplingOptions, not dict"):
        toon.interpolate_pairs([Pair(*pictures)], {"steps": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="the first picture must be uint8 .* not object"):
        toon.interpolate_pairs([Pair(None, pictures[1])], SamplingOptions(**SETTINGS))  # pyright: ignore


@pytest.mark.usefixtures("unchecked_types")
def test_numbers_of_numpy_are_taken(toon: ToonCrafter, pictures: Any, clip: np.ndarray) -> None:
    settings: dict[str, Any] = {name: np.int64(value) for name, value in SETTINGS.items()} | {"seed": np.uint32(5)}
    assert_nearly_equal(toon.interpolate(pictures[0], pictures[1], "walking man", **settings), clip)


FORKED = """\
import os, sys, warnings
import numpy as np
from tooncrafter_jax import ToonCrafter, UserError
from tooncrafter_jax.models.configuration import tiny

warnings.simplefilter("ignore")
toon = ToonCrafter(tiny(), {}, dtype="float32")
picture = np.zeros((64, 64, 3), np.uint8)
for use in (lambda: toon.interpolate(picture, picture), lambda: ToonCrafter.random("tiny"), ToonCrafter.load):
    child = os.fork()
    if not child:
        try:
            use()
        except UserError as error:
            print(error, flush=True)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_is_reported_to_spawn_instead_of_waiting_for_ever() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert [line.count("get_context('spawn')") for line in done.stdout.splitlines()] == [1, 1, 1]


def test_second_pass_frames_follow_the_published_indexing() -> None:
    kept, replaced, found = second_pass_frames(16)
    assert kept == [0, *range(2, 14), 15]
    assert list(range(16))[replaced] == [7, 8] == kept[found]


@pytest.mark.parametrize(
    ("rows", "frames", "expected"),
    [
        (2, 16, {"data": 2, "frames_0": 2, "frames_1": 2}),
        (16, 16, {"data": 8}),
        (6, 15, {"data": 2}),
        (1, 16, {"data": 1}),
    ],
)
def test_sampling_mesh(devices: list[Device], rows: int, frames: int, expected: dict[str, int]) -> None:
    mesh = sampling_mesh(devices, rows, frames)
    assert mesh is not None
    assert {**mesh.shape, **expected} == dict(mesh.shape)
    assert mesh.size == 8


def test_prime_factors() -> None:
    assert [prime_factors(n) for n in (1, 2, 12, 7)] == [[], [2], [2, 2, 3], [7]]
