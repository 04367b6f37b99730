"""Consistency distillation: its targets where all is known, what learns and what does not."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.gaussian import DEVIATION, MEAN, spread
from tests.training.small import NARROW_CHANGES, config, start_params
from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.diffusion.consistency import pseudo_huber, teacher_steps
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.training.sharding import make_mesh, put_batch, step_rows
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.distill import TEACHER, Distill
from tooncrafter_jax.training.start import Start, architecture
from tooncrafter_jax.training.state import abstract_state
from tooncrafter_jax.training.step import make_step
from tooncrafter_jax.weights.lora import PREFIX

NARROW = {"model_changes": NARROW_CHANGES, "data": {"height": 16, "width": 16, "batch": 2}}


def distill(directory="", **changes):
    settings = config(directory, "distill", **{**NARROW, **changes})
    stage = make_stage(settings, architecture(settings))
    assert isinstance(stage, Distill)
    return stage


# ------------------------------------------------------------------------------------------------ where all is known

SCHEDULE = NoiseSchedule()
LADDER = 10
"""Steps of the teacher: one for each range of times that the loss is told of."""
OTHER = -0.2
"""Mean of what the teacher makes without prompt and picture."""


def tables():
    """Signal without the dynamic scale, noise, and that scale, by time."""
    alphas = SCHEDULE.alphas_cumprod_f64
    return np.sqrt(alphas), np.sqrt(1 - alphas), SCHEDULE.dynamic_scale[: len(alphas)].astype(np.float64)


def perfect(time, mean=MEAN):
    """The best prediction of clean latents from noisy ones of normal data: (factor, constant)."""
    alpha, sigma, scale = (table[time] for table in tables())
    signal = alpha * scale
    factor = signal * DEVIATION**2 / spread(signal, sigma) ** 2
    return factor, mean * (1 - factor * signal)


def guided(time, scale):
    """The same with guidance that leads away from data of another mean."""
    (factor, constant), (_, other) = perfect(time), perfect(time, OTHER)
    return factor, other + scale * (constant - other)


def composed(predict):
    """What the teacher's steps lead to from each time, one after another: time -> (factor, constant)."""
    alpha, sigma, scale = tables()
    times, found = [99 + 100 * n for n in range(LADDER)], {}
    for n, time in enumerate(times):
        factor, constant = predict(time)
        if n == 0:
            found[time] = factor, constant
            continue
        to = times[n - 1]
        kept = sigma[to] / sigma[time]
        gain = scale[to] * alpha[to] - kept * scale[time] * alpha[time]
        a, b = found[to]
        found[time] = a * (kept + gain * factor), a * gain * constant + b
    return found


class Known:
    """In place of a model: of normal data, with linear predictions of the clean latents."""

    def __init__(self, stage, says):
        self.config, self._says = stage.model, says

    def text_tokens(self, token_ids):
        return jnp.zeros((len(token_ids), 1, 1))

    def picture_tokens(self, pictures):
        assert not pictures.any()
        return jnp.zeros((len(pictures), 1, 1))

    def image_tokens(self, tokens):
        return tokens

    def condition(self, ends, frames, text, image, fps, hints, scale, motion):
        assert bool(text.all()) == bool(image.all())
        return bool(text.all())

    def predict_v(self, noisy, times, conditions, **others):
        assert others == {"bypass_temporal": False, "dropout_key": None}
        says = [self._says(int(time), conditions) for time in times]
        columns = [np.asarray(column, np.float32).reshape(-1, 1, 1, 1, 1) for column in zip(*says, strict=True)]
        alpha, sigma, scale = (table[times].reshape(-1, 1, 1, 1, 1).astype(np.float32) for table in tables())
        return (alpha * noisy - scale * (columns[0] * noisy + columns[1])) / sigma


def known_loss(monkeypatch, student, teacher=lambda time, cond: perfect(time, MEAN if cond else OTHER), **options):
    """The stage's loss, and its means by range of times, on 64 clips of normal data."""
    stage = distill(options={"times": LADDER, "guidance_rescale": 0.0, **options})
    latents = MEAN + DEVIATION * np.random.default_rng(0).normal(size=(64, 3, 2, 2, 4)).astype(np.float32)
    latents /= stage.model.schedule.scale_factor
    batch = {
        "moments": jnp.asarray(np.concatenate([latents, np.full_like(latents, -30.0)], -1)),
        "seed": jnp.arange(64, dtype=jnp.uint32),
        "fps": jnp.full(64, 8),
        "valid": jnp.ones(64, bool),
        "text": jnp.ones((64, 1, 1)),
        "image": jnp.ones((64, 1, 1)),
    }
    monkeypatch.setattr(stage, "of_teacher", lambda params: {"teacher": True})
    monkeypatch.setattr(stage, "bound", lambda params: cast(Any, Known(stage, teacher if params else student)))
    loss, (losses, metrics) = stage.loss({}, batch, None)
    assert losses["consistency"] == loss
    assert (metrics["clips_by_time"] > 0).all() and metrics["clips_by_time"].sum() == 64
    return float(loss), np.asarray(metrics["loss_by_time"] / metrics["clips_by_time"])


@pytest.mark.usefixtures("unchecked_types")  # of fakes
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_student_that_makes_all_steps_at_once_has_nothing_to_learn(monkeypatch, scale):
    """The composition of the guided steps is the fixed point, from pure noise to clean latents, at every time."""
    of_all = composed(lambda time: guided(time, scale))
    loss, by_time = known_loss(monkeypatch, lambda time, _: of_all[time], guidance_scale=scale)
    assert loss < 1e-5 and by_time.max() < 1e-5  # errors of rounding, 1e-6, over a constant of 1e-3, squared
    of_another = composed(lambda time: guided(time, scale + 0.5))
    assert known_loss(monkeypatch, lambda time, _: of_another[time], guidance_scale=scale)[0] > 0.01


@pytest.mark.usefixtures("unchecked_types")
def test_the_teacher_itself_is_right_at_the_lowest_time_alone(monkeypatch):
    """There the target is what the teacher says; elsewhere one prediction is not what several lead to."""
    _, by_time = known_loss(monkeypatch, lambda time, _: perfect(time), guidance_scale=1.0)
    assert by_time[0] < 1e-5 and (by_time[1:] > 1e-3).all()
    wrong_below = {99: (0.0, 5.0)}
    _, by_time = known_loss(monkeypatch, lambda time, _: wrong_below.get(time, perfect(time)), guidance_scale=1.0)
    assert (by_time[:2] > 1.0).all(), "the second time learns from the first"


@pytest.mark.usefixtures("unchecked_types")
def test_scales_of_a_range_are_drawn_by_the_clips(monkeypatch):
    """A student of the middle errs on both sides of it; where no prompt matters all scales are one."""
    of_middle = composed(lambda time: guided(time, 2.0))
    wide, narrow = (
        known_loss(monkeypatch, lambda time, _: of_middle[time], guidance_scale=2 - half, most_guidance=2 + half)[0]
        for half in (1.0, 0.1)
    )
    assert 5 < wide / narrow < 15
    alike = known_loss(
        monkeypatch,
        lambda time, _: composed(perfect)[time],
        teacher=lambda time, _: perfect(time),
        guidance_scale=1.0,
        most_guidance=9.0,
    )
    assert alike[0] < 1e-5


def test_the_ladder_leads_to_clean_latents():
    ladder = teacher_steps(SCHEDULE, 40)
    assert ladder.time.tolist() == [24 + 25 * n for n in range(40)]
    assert ladder.following.tolist() == [24, *ladder.time[:-1]]
    assert (ladder.kept[0], ladder.gain[0]) == (0.0, 1.0)
    assert np.isfinite(ladder.kept).all() and np.isfinite(ladder.gain).all()
    noisy, clean = (jnp.full((2, 1, 1, 1, 1), value) for value in (3.0, 0.5))
    led = ladder.led(noisy, clean, jnp.asarray([0, 39])).reshape(-1)
    alpha, sigma, scale = (table[974] for table in tables())
    np.testing.assert_allclose(led, [0.5, sigma * 3.0 + scale * alpha * 0.5], rtol=1e-6)  # all noise at time 999


def test_the_distance_is_a_square_below_its_constant_and_a_root_above():
    zeros = jnp.zeros((3, 2, 2, 2, 4))
    errors = jnp.asarray([0.0, 1e-4, 10.0]).reshape(-1, 1, 1, 1, 1)
    found = pseudo_huber(zeros + errors, zeros, 1e-2)
    np.testing.assert_allclose(found, [0.0, 1e-8 / 2e-2, 10.0 - 1e-2], rtol=1e-3)
    assert np.isfinite(jax.grad(lambda x: pseudo_huber(x, zeros, 1e-2).sum())(zeros)).all()


# ------------------------------------------------------------------------------------------------- what learns


def alive(params):
    """A fresh denoiser ends in zeros, through which nothing learns."""
    draw = np.random.default_rng(1)
    return {
        path: jnp.asarray(value if value.any() else 0.02 * draw.standard_normal(value.shape, np.float32))
        for path, value in params.items()
    }


def batch_of(clips, stage):
    with Loader.open(stage.config.data) as loader:
        return {name: jnp.asarray(rows) for name, rows in step_rows(next(loader)).items()}


@pytest.mark.gate
@pytest.mark.heavy
def test_the_asked_parameters_learn_and_no_gradient_reaches_the_teacher(clips):
    stage = distill(clips, groups=("spatial",))
    assert set(stage.copies.values()) == {
        path for path in stage.components.abstract_params if path.startswith("unet.") and stage.is_trained(path)
    }
    params = alive(start_params(stage))
    params |= {copy: params[path] for copy, path in stage.copies.items()}
    some = {path: value for path, value in params.items() if stage.is_trained(path) or path in stage.copies}
    batch = batch_of(clips, stage)
    function = jax.jit(jax.value_and_grad(lambda some: stage.loss(params | some, batch, None)[0]))
    loss, found = function(some)
    still = {path for path, gradient in found.items() if not np.asarray(gradient).any()}
    assert still == set(stage.copies)
    assert all(np.isfinite(gradient).all() for gradient in found.values())
    # A teacher that is the student is what the loss starts from; another teacher is another target.
    other = {path: value * 0.8 if path in stage.copies else value for path, value in some.items()}
    assert abs(function(other)[0] / loss - 1) > 1e-3


@pytest.mark.gate
@pytest.mark.heavy
def test_factors_learn_beside_the_teacher_without_a_copy_of_it(clips):
    lora = {"rank": 2, "alpha": 4.0}
    stage = distill(clips, options={"lora": lora, "guidance_scale": 2.0}, optimizer={"learning_rate": 3e-3})
    assert not stage.copies and not any(path.startswith(TEACHER) for path in abstract_state(stage).params)
    mesh = make_mesh("data:1", jax.devices()[:1])
    settings = stage.config
    stage = make_stage(settings, architecture(settings), mesh)
    assert isinstance(stage, Distill)
    state, step = Start(stage).state(mesh), make_step(stage, mesh)
    frozen = {path: np.asarray(value) for path, value in state.frozen.items()}
    teacher = stage.of_teacher(state.params)
    assert teacher.keys() == frozen.keys() and all(path.startswith(PREFIX) for path in state.trained)
    state = type(state)(**{**vars(state), "frozen": alive(frozen)})
    rows, losses = put_batch({name: np.asarray(value) for name, value in batch_of(clips, stage).items()}, mesh), []
    before = {path: np.asarray(value) for path, value in state.trained.items()}
    for _ in range(8):
        state, metrics = step(state, rows)
        losses.append(float(metrics["loss"]))
    assert min(losses[4:]) < losses[0]
    moved = {path for path, value in state.trained.items() if not np.array_equal(value, before[path])}
    assert moved == set(before)


# ------------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": 0}, "config.distill.times must be at least 1, not 0"),
        ({"times": 2000}, "config.distill.times is 2000, but the schedule of this model has 1000: set at most that"),
        ({"times": 8, "steps": 9}, "config.distill.steps is 9, more than the 8 steps of the teacher"),
        ({"guidance_scale": 8.0, "most_guidance": 2.0}, "most_guidance is 2.0, below config.distill.guidance_scale"),
        ({"huber": 0.0}, "config.distill.huber must be at least 1e-06, not 0.0"),
        ({"lora": {"rank": 2, "targets": ["nothing"]}}, "config.distill.lora.targets .* match no kernel"),
    ],
)
def test_options_that_make_no_sense_are_told(options, message):
    with pytest.raises(UserError, match=message):
        distill(options=options)


def test_sketches_guide_teacher_and_student_alike():
    plain, guided_by = distill(), distill(options={"sketched": True, "extractor": "hed"})
    assert plain.sketches is None and "sketch_encoder" not in plain.uses
    assert guided_by.sketches is not None and guided_by.needs_pixels and "sketch_encoder" in guided_by.uses
    trained = {path.split(".")[0] for path in guided_by.components.abstract_params if guided_by.is_trained(path)}
    assert trained == {"unet"} == {path.split(".")[1] for path in guided_by.copies}
