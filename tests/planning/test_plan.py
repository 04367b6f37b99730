"""The command `plan`: what it reports agrees with the state, with formulas, and with the traced gradients."""

import copy
import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import MODEL_CHANGES, config
from tooncrafter_jax.errors import UserError

VARIANTS = {
    "ii": ("projector", "spatial", "temporal", "image_kv", "fps"),
    "iv": ("projector", "spatial", "image_kv", "fps"),
    "v": ("projector",),
}


def _narrow(**changes):
    """A model that compiles in seconds: one level, one block."""
    model = copy.deepcopy(MODEL_CHANGES)
    model["unet"] |= {"multipliers": [1], "attention_levels": [0]}
    model["autoencoder"] |= {"multipliers": [1, 1]}
    return config("", model_changes=model, data={"height": 16, "width": 16}, **changes)


@pytest.fixture(scope="module")
def run(devices):
    from tooncrafter_jax.planning.plan_run import plan_run
    from tooncrafter_jax.planning.topologies import parse_topology

    settings = _narrow(mesh="data:2,fsdp:4", validation="test", sample_every=500)
    return plan_run(settings, parse_topology("cpu:8"))


@pytest.fixture(scope="module")
def plan(run):
    return run.step


@functools.cache
def _minimum(groups=VARIANTS["iv"], remat="none"):
    from tooncrafter_jax.planning.plan import minimum_flops
    from tooncrafter_jax.training.stages import make_stage
    from tooncrafter_jax.training.start import architecture

    settings = _narrow(groups=groups, remat=remat)
    return minimum_flops(make_stage(settings, architecture(settings)))


# ------------------------------------------------------------------------------------------------------- the whole plan


@pytest.mark.gate
def test_arguments_are_those_of_the_state(plan):
    """The compiler leaves out arguments that the step never reads, and adds nothing."""
    assert plan.fits is None and plan.seconds is None and plan.refusal == ""
    given = sum(plan.arguments.values())
    assert 0.9 * given < plan.memory.argument <= given
    assert plan.memory.peak == plan.memory.argument + plan.memory.output - plan.memory.alias + plan.memory.temp
    assert plan.memory.alias > 0.9 * plan.memory.argument  # the state is given up to the step


@pytest.mark.gate
def test_moments_belong_to_trained_parameters_only(plan):
    counters = plan.arguments["optimizer"] - 2 * plan.arguments["trained"]
    assert 0 <= counters <= 16 and plan.arguments["average"] == 0
    assert plan.arguments["frozen"] > 0


@pytest.mark.gate
def test_parameters_are_gathered_and_gradients_come_back(plan):
    gathered = plan.collectives["all-gather"]
    assert gathered.count > 0 and 0 < gathered.traffic < gathered.bytes
    assert any(
        plan.collectives[kind].bytes > 0 for kind in ("all-reduce", "reduce-scatter") if kind in plan.collectives
    )


@pytest.mark.gate
def test_the_compiled_program_does_the_minimum_and_not_much_more(plan):
    """A quarter more: at this size devices repeat the text tower's and the embeddings' small products."""
    assert 0.98 < plan.flops / plan.minimum.total < 1.25


@pytest.mark.gate
def test_the_report_says_that_it_is_simulated_and_is_json(plan):
    from tooncrafter_jax.planning.plan_report import plan_text, plan_values

    text, values = plan_text(plan), json.loads(json.dumps(plan_values(plan)))
    assert "simulated" in text and "all-gather" in text and "data:2,fsdp:4" in text
    assert values["simulated"] is True
    assert values["minimum"]["total"] == pytest.approx(plan.minimum.total)
    assert values["largest"][0]["bytes"] == max(one["bytes"] for one in values["largest"])


@pytest.mark.gate
def test_a_run_is_planned_with_its_validation_and_samples(run):
    """While they run the whole state stays on the devices, the optimizer's too, which they are not given."""
    step, validation, samples = run.programs
    assert [step.name, validation.name, samples.name] == ["step", "validation", "samples"]
    assert (step.clips, validation.clips, samples.clips) == (8, 8, 1)
    arguments = run.step.arguments
    state = sum(arguments.values()) - arguments["batch"]
    for program in run.programs:
        assert program.peak == program.memory.peak + program.beside >= state + program.memory.temp
        assert program.memory.temp > 0 and program.refusal == ""
    assert validation.beside > 0.9 * arguments["optimizer"] and samples.beside > 0.9 * arguments["optimizer"]
    assert run.largest.peak == max(program.peak for program in run.programs) and run.fits is None


@pytest.mark.gate
def test_the_report_tells_the_peak_of_the_whole_run(run):
    from tooncrafter_jax.planning.plan_report import run_text, run_values

    text, values = run_text(run), json.loads(json.dumps(run_values(run)))
    assert "peak of the whole run" in text and "samples, 1 clip " in text and "validation, 8 clips" in text
    assert values["run"]["peak"] == run.largest.peak and values["run"]["largest"] == run.largest.name
    assert values["run"]["programs"]["samples"]["memory"]["temp"] == run.programs[2].memory.temp
    assert values["memory"]["peak"] == run.step.memory.peak, "the step's own values stay where they were"


@pytest.mark.gate
def test_what_a_chip_cannot_hold_is_the_largest_and_does_not_fit(run):
    from tooncrafter_jax.planning.plan_report import run_text
    from tooncrafter_jax.planning.topologies import parse_topology

    chips = dataclasses.replace(run.step, topology=parse_topology("v5e:2x4"), fits=True)
    step, validation, samples = run.programs
    assert dataclasses.replace(run, step=chips).fits is True
    refused = dataclasses.replace(samples, memory=None, refusal="Used 20G of 15G hbm.")
    short = dataclasses.replace(run, step=chips, programs=(step, validation, refused))
    assert short.fits is False and short.largest is refused
    assert "DOES NOT FIT" in run_text(short) and "Used 20G of 15G hbm." in run_text(short)
    crowded = dataclasses.replace(samples, beside=int(chips.topology.chip.memory))
    assert dataclasses.replace(run, step=chips, programs=(step, crowded)).fits is False


@pytest.mark.gate
def test_a_run_without_them_is_its_step(run, monkeypatch):
    from tooncrafter_jax.planning import plan_run

    monkeypatch.setattr(plan_run, "plan_training", lambda *_: run.step)
    alone = plan_run.plan_run(_narrow(mesh="data:2,fsdp:4"), run.step.topology)
    assert [program.name for program in alone.programs] == ["step"] and alone.largest.peak == run.programs[0].peak


# ----------------------------------------------------------------------------------------------------------- operations


@pytest.mark.gate
def test_sampling_is_planned_for_the_topologys_device_and_its_weights(devices, monkeypatch):
    """Also where it has but one, which need not be the first of those that are here; nothing is compiled."""
    from tooncrafter_jax.nn.quantised import QuantisedKernel
    from tooncrafter_jax.planning import planned_sampler
    from tooncrafter_jax.planning import sampling_plan as module
    from tooncrafter_jax.planning.topologies import parse_topology

    planned, held, arguments = [], [], module.sampling_arguments
    monkeypatch.setattr(planned_sampler, "topology_devices", lambda _: devices[3:4])
    monkeypatch.setattr(module, "sampling_arguments", lambda *a: planned.append(arguments(*a)) or planned[-1])
    monkeypatch.setattr(module, "compiled_plan", lambda *a: held.append(a[5]))
    for dtype in (None, "int8"):
        module.plan_sampling(_narrow(), parse_topology("cpu:1"), 1, dtype)
    for args in planned:
        assert {device for leaf in jax.tree.leaves(args) for device in leaf.sharding.device_set} == {devices[3]}
    kernels = [leaf for leaf in planned[1][0]["unet"].values() if isinstance(leaf, QuantisedKernel)]
    saved = sum((4 - 1) * leaf.values.size - 4 * leaf.scale.size for leaf in kernels)  # of float32
    assert held[0]["parameters"] - held[1]["parameters"] == saved > 0
    assert held[0]["inputs"] == held[1]["inputs"]


@pytest.mark.gate
def test_decoding_is_planned_for_the_topologys_device_its_chunks_and_its_tiles(devices, monkeypatch):
    """It is the very program that decodes: compiled here, its memory falls with the frames of a chunk."""
    from tooncrafter_jax.planning import decoding_plan as module
    from tooncrafter_jax.planning import planned_sampler
    from tooncrafter_jax.planning.topologies import parse_topology

    monkeypatch.setattr(planned_sampler, "topology_devices", lambda _: devices[3:4])
    whole, chunks = (
        module.plan_decoding(_narrow(), parse_topology("cpu:1"), 1, {"decode_frames_per_chunk": count})
        for count in (16, 2)
    )
    assert whole.memory is not None and chunks.memory is not None
    assert chunks.memory.temp < whole.memory.temp
    assert whole.minimum == chunks.minimum and whole.minimum.backward == 0
    assert whole.flops == pytest.approx(whole.minimum.forward, rel=0.1)


@pytest.mark.gate
def test_devices_share_clips_and_frames_that_are_decoded_as_when_sampling(devices, monkeypatch):
    """Two clips on eight devices: each has one clip's references, and a quarter of its frames; all have the weights."""
    from tooncrafter_jax.planning import decoding_plan as module
    from tooncrafter_jax.planning.topologies import parse_topology

    held = {}
    monkeypatch.setattr(module, "compiled_plan", lambda *a: held.setdefault(a[1].devices, a[5]))
    for count in (1, 8):
        module.plan_decoding(_narrow(), parse_topology(f"cpu:{count}"), 2)
    settings = _narrow()
    latents = (
        4
        * 2
        * np.prod(
            module.latent_shape(
                settings, module.planned_sampler(settings, parse_topology("cpu:1"), 2, "decoding", None).sampler.config
            )
        )
    )
    assert held[8]["parameters"] == held[1]["parameters"]
    assert held[8]["inputs"] == latents / 8 + (held[1]["inputs"] - latents) / 2


@pytest.mark.gate
def test_operations_follow_what_is_trained():
    by_variant = {name: _minimum(groups) for name, groups in VARIANTS.items()}
    assert len({found.forward for found in by_variant.values()}) == 1
    assert by_variant["v"].backward < by_variant["iv"].backward < by_variant["ii"].backward


@pytest.mark.gate
def test_the_minimum_equals_the_products_of_the_traced_gradient():
    from tooncrafter_jax.nn.platform import tracing_for, without_cpu_forms
    from tooncrafter_jax.planning.plan import abstract_batch
    from tooncrafter_jax.runtime.flops import forward_flops
    from tooncrafter_jax.training.stages import make_stage
    from tooncrafter_jax.training.start import architecture
    from tooncrafter_jax.training.state import abstract_state

    settings = _narrow(groups=VARIANTS["iv"])
    stage = make_stage(settings, architecture(settings))
    step = jnp.zeros((), jnp.int32)
    with tracing_for("cpu"), without_cpu_forms():
        traced = forward_flops(
            lambda params, batch: stage.gradients(params, batch, jax.random.key(0), step).by_optimizer,
            abstract_state(stage).params,
            abstract_batch(stage, settings.data.batch),
        )
    assert _minimum().total == pytest.approx(traced, rel=0.01)


@pytest.mark.gate
def test_checkpointed_blocks_are_counted_once_more():
    plain, blocks = _minimum(), _minimum(remat="blocks")
    assert plain.recomputed == 0 and blocks.forward == plain.forward and blocks.backward == plain.backward
    assert 0 < blocks.recomputed < blocks.forward


def test_operations_of_one_layer_by_formula():
    from tooncrafter_jax.runtime.flops import Flops, step_flops

    x, w = np.zeros((4, 8), np.float32), np.zeros((8, 16), np.float32)
    product = 2.0 * 4 * 8 * 16
    assert step_flops(lambda w, x: jnp.sum(x @ w), w, x) == Flops(product, product)
    assert step_flops(lambda x, w: jnp.sum(jax.nn.relu(x @ w)), x, w) == Flops(product, product)
    assert step_flops(lambda s, x, w: jnp.sum(s * (x @ w)), np.float32(1), x, w) == Flops(product)
    twice = step_flops(lambda w, x: jax.lax.scan(lambda h, _: (h @ w @ w.T, None), x, length=3)[0].sum(), w, x)
    assert twice == Flops(6 * product, 12 * product)


@pytest.mark.parametrize("policy", [None, "nothing_saveable", "dots_with_no_batch_dims_saveable"])
def test_loops_branches_and_checkpoints_by_formula(policy):
    """Constants, carried and sliced values of a scan, a branch, a loop and a checkpointed block, on any release of
    JAX.
    """
    from tooncrafter_jax.runtime.flops import Flops, forward_flops, step_flops

    x, ws = np.zeros((4, 8), np.float32), np.zeros((3, 8, 8), np.float32)
    product, kept = 2.0 * 4 * 8 * 8, policy == "dots_with_no_batch_dims_saveable"

    def of_scan(ws, constant, x):
        def body(carried, w):
            h, frozen = carried
            return (h @ w, frozen @ constant), h.sum()

        if policy is not None:
            body = jax.checkpoint(body, policy=getattr(jax.checkpoint_policies, policy))
        (h, frozen), sums = jax.lax.scan(body, (x, x), ws)
        return h.sum() + frozen.sum() + sums.sum()

    again = 0.0 if policy is None or kept else 3 * product
    # h depends on trained weights from the second turn on, which counts for every turn; frozen never does.
    assert step_flops(of_scan, ws, ws[0], x) == Flops(6 * product, 6 * product, again)
    of_branch = step_flops(lambda w, x: jax.lax.cond(x[0, 0] > 0, lambda h: h @ w, lambda h: h, x).sum(), ws[0], x)
    assert of_branch == Flops(product, product)
    of_loop = forward_flops(
        lambda w, x: jax.lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] @ w, c[1] + 1), (x, 0))[0], ws[0], x
    )
    assert of_loop == product, "how often it runs is not known: once"


@pytest.mark.parametrize(
    ("size", "window", "settings"),
    [
        (8, 3, {"stride": 1, "padding": 1}),
        (8, 3, {"stride": 2, "padding": 0}),
        (7, 3, {"stride": 2, "padding": 1, "rhs_dilation": 2}),
        (5, 4, {"stride": 1, "padding": 2, "lhs_dilation": 2}),
        (6, 5, {"stride": 3, "padding": 4}),
        (6, 2, {"stride": 1, "padding": -1}),
    ],
)
def test_places_of_a_convolution_by_its_own_sum(size, window, settings):
    """A convolution of ones with ones sums to the number of places that count."""
    from tooncrafter_jax.runtime.flops import meeting_places

    dilations: dict[str, Any] = {
        name: (settings[name],) for name in ("lhs_dilation", "rhs_dilation") if name in settings
    }
    ones = jnp.ones((1, 1, size)), jnp.ones((1, 1, window))
    out = jax.lax.conv_general_dilated(ones[0], ones[1], (settings["stride"],), [(settings["padding"], 1)], **dilations)
    assert meeting_places(size, window, out.shape[2], **settings) == int(out.sum())


# ------------------------------------------------------------------------------------------------------------ precision


@pytest.mark.gate
@pytest.mark.parametrize(("platform", "dtype", "is_exact"), [("tpu", "float32", True), ("tpu", "bfloat16", False)])
def test_float32_training_multiplies_in_float32(platform, dtype, is_exact):
    """Forward and backward: a TPU's default product of float32 matrices has 7 bits. The lowered step says what is asked
    for.
    """
    from tooncrafter_jax.nn.platform import tracing_for
    from tooncrafter_jax.planning.plan import abstract_batch
    from tooncrafter_jax.training.stages import make_stage
    from tooncrafter_jax.training.start import architecture
    from tooncrafter_jax.training.state import abstract_state
    from tooncrafter_jax.training.step import make_step

    settings = _narrow(groups=VARIANTS["iv"], dtype=dtype, frozen_dtype=dtype)
    stage = make_stage(settings, architecture(settings))
    with tracing_for(platform):
        step: Any = make_step(stage)
        text = step.lower(abstract_state(stage), abstract_batch(stage, 8)).as_text()
    products = [
        line for line in text.splitlines() if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
    ]
    assert len(products) > 100
    if is_exact:
        assert all("HIGHEST" in line for line in products)
    else:
        networks = [line for line in products if "bf16>" in line]
        assert len(networks) > 100 and not any("HIGHEST" in line for line in networks)


# ------------------------------------------------------------------------------------------------- topologies, mistakes


def test_slices_are_named_by_their_sides():
    from tooncrafter_jax.planning.topologies import parse_topology

    assert [parse_topology(text).devices for text in ("v5e:4x8", "v5p:4x4x4", "v6e:16x16", "cpu:8")] == [32, 64, 256, 8]
    assert parse_topology("v5p:2x2x1").platform == "tpu" and parse_topology("cpu:2").platform == "cpu"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--topology=v9:4x8"], "names no known machine: choose one of v5e, v5p, v6e or cpu"),
        (["--topology=v5e:4x4x4"], "a v5e slice is given by 2 sides, as in v5e:4x8"),
        (["--topology=v5p:64"], "given by 3 sides, as in v5p:4x4x4"),
        (["--topology=cpu:many"], "as in cpu:8"),
        (["--topology=cpu:8", "--config.mesh=data:3"], "is for 3 devices, but there are 8"),
        (["--topology=cpu:8", "--config.data.batch=12"], "config.data.batch is 12, which must be a multiple of 8"),
        (["--topology=cpu:8", "--config.remat=offload"], "needs a TPU"),
        (["--topology=cpu:8", "--config.attention=flash"], "config.attention must be one of auto, xla, "),
        (
            ["--topology=cpu:8", "--config.attention=splash"],
            "config.attention is 'splash', which needs a TPU, but this is a CPU",
        ),
        (
            ["--topology=cpu:8", "--config.attention=cudnn", "--sampling"],
            "config.attention is 'cudnn', which needs an NVIDIA",
        ),
        (["--topology=cpu:8", "--config.data.batch=8", "--sampling=0"], "at least 1 pair"),
        (["--topology=cpu:8", "--config.lerning_rate=1"], "lerning_rate"),
        (["--topology=cpu:8", "--sampel"], "did you mean --sampling"),
        (["--topology=cpu:4000"], "JAX was started with"),
        (["--topology=cpu:8", "--json=."], "is a directory: name the file"),
        (["--topology=cpu:8", "--json=/proc/none/plan.json"], "cannot be written"),
        (["--topology=cpu:8", "--hosts", "--step-only"], "which --hosts does not compile"),
        (["--topology=cpu:8", "--sampling", "--step-only"], "which --sampling does not compile"),
        (["--topology=cpu:8", "--solver=unipc"], "--solver is for --sampling"),
        (["--topology=cpu:8", "--config.data.batch=8", "--sampling", "--reuse=1"], "reuse must be"),
        (["--topology=cpu:8", "--weight-dtype=int8"], "is for --sampling: training and decoding hold all weights"),
        (["--topology=cpu:8", "--decoding", "--weight-dtype=int8"], "is for --sampling: training and decoding"),
        (["--topology=cpu:8", "--decoding", "--solver=unipc"], "--solver is for --sampling"),
        (["--topology=cpu:8", "--sampling", "--decode-tile-size=64"], "--decode-tile-size is for --decoding"),
        (["--topology=cpu:8", "--sampling", "--decoding"], "do not go together"),
        (["--topology=cpu:8", "--config.data.batch=8", "--decoding=0"], "at least 1 pair"),
        (["--topology=cpu:8", "--decoding", "--hosts"], "decoding loads no batches"),
    ],
)
def test_mistakes_are_named_before_anything_is_compiled(devices, monkeypatch, arguments, sentence):
    from tooncrafter_jax.__main__ import main
    from tooncrafter_jax.planning import plan as module

    monkeypatch.setattr(module, "compiled_plan", lambda *args: pytest.fail("compiled"))
    with pytest.raises(UserError, match=sentence):
        main(["plan", "--config=configs/tiny.py:rectify", *arguments])


def test_a_missing_compiler_is_named(monkeypatch):
    from tooncrafter_jax.planning import topologies

    monkeypatch.setattr(topologies, "has_tpu_compiler", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'tooncrafter-jax\[tpu\]'"):
        topologies.topology_devices(topologies.parse_topology("v5e:2x4"))


def test_what_does_not_fit_is_said_in_the_compilers_numbers():
    from tooncrafter_jax.planning.plan import refusal

    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory.\nUsed 20.13G of 15.75G hbm. Exceeded hbm capacity by 4.38G.\n\nTotal"
    )
    assert refusal(message) == "Used 20.13G of 15.75G hbm. Exceeded hbm capacity by 4.38G."
