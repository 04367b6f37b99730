"""`tooncrafter evaluate`: models, decoders and rivals measured on the same true clips."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from tqdm import tqdm

from tooncrafter_jax.cli.common import EXIT_OK, Parser, interruption_note
from tooncrafter_jax.cli.evaluate_options import SPLIT, add_clips, add_how, add_measured
from tooncrafter_jax.cli.sampling_options import add_sampling, sampling_options
from tooncrafter_jax.cli.vocabulary import (
    add_clip_weights,
    add_compilation_cache,
    add_hosts,
    add_metric_weights,
    add_out,
)
from tooncrafter_jax.curation.clip_model import ClipWeights
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.evaluation import atd12k
from tooncrafter_jax.evaluation.method_specs import (
    MethodSpec,
    check_against,
    chosen_methods,
    chosen_metrics,
)
from tooncrafter_jax.evaluation.methods import TrueSketches
from tooncrafter_jax.evaluation.metrics import MetricWeightFiles, make_metrics
from tooncrafter_jax.evaluation.row_store import RowStore
from tooncrafter_jax.evaluation.run import Evaluation, Method, Truth
from tooncrafter_jax.evaluation.true_clips import TrueClips, TrueSet, WindowRule
from tooncrafter_jax.io.atomic_files import check_writable
from tooncrafter_jax.nn.attention import check_backend
from tooncrafter_jax.options import as_shown
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.runtime.distributed import initialize, is_main_process
from tooncrafter_jax.sampling.model_loading import compute_dtype
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sketches import NetworkExtractor, load_extractor
from tooncrafter_jax.typing import JsonObject

PROGRAM = "tooncrafter evaluate"
DESCRIPTION = f"""\
Lets models and rivals draw the clips of a set again from their first and last frames, measures all of them against the
truth, and writes OUT/report.md, OUT/report.json, plots and pictures.

  {PROGRAM} data/emoji --preset=table1 --methods truth still flow_warp rife runs/rectify/export --out=runs/table1
  {PROGRAM} data/emoji --preset=table4 --methods reconstruction:runs/decoder/export --out=runs/table4
  {PROGRAM} --atd12k=ATD-12K --methods Doubiiu/ToonCrafter rife --out=runs/atd12k

METHOD is one of
  truth                the true clips: what every metric gives for a perfect method
  still, cross_fade, flow_warp, rife, ...   rivals (see below)
  folder:DIR           videos made elsewhere, named by clip id
  DIR                  a ToonCrafter model: a checkpoint directory; or "small" for the bundled one
  sketched:DIR         that model, guided by sketches of true frames (--sketch-frames)
  reconstruction:DIR   that model's decoder on the latents of the true frames (Table 4 of the paper)
and NAME=METHOD gives it another name in the report. A model may have sampling options of its own behind it, and frames
for its sketches: "small[steps=8,solver=unipc]", "sketched:small[sketch_frames=4,8,12]".
"""
EPILOG = """\
A run that was stopped goes on with the same command; with more metrics it measures only those. Networks of metrics are
fetched by `tooncrafter fetch-metric-weights`.

exit codes: 0 done; 2 something is wrong with the request; 130 Ctrl-C
"""


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser(PROGRAM, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("set", type=Path, nargs="?", metavar="SET", help="clips as `curate` wrote them")
    parser.add_argument(
        "--atd12k",
        type=Path,
        metavar="DIR",
        help="instead of a set, the test triplets of ATD-12K: the middle frame of a clip against the middle drawing, "
        "by the protocol of docs/evaluation.md",
    )
    add_out(parser.add_argument, "the report, numbers, plots and pictures", required=True)
    add_measured(parser.add_argument_group("what is measured").add_argument)
    add_clips(parser.add_argument_group("which clips").add_argument)
    add_how(parser.add_argument_group("how").add_argument)
    weights = parser.add_argument_group("weights of metrics").add_argument
    add_metric_weights(weights)
    add_clip_weights(weights, "clip_image and clip_text")
    add_sampling(parser, "how models sample")
    where = parser.add_argument_group("where it runs").add_argument
    add_hosts(where)
    add_compilation_cache(where)
    return parser


def main(argv: list[str]) -> int:
    """Evaluates what the arguments ask for.

    Returns:
      0. A mistake raises `UserError`.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    _check_truth(arguments)
    named = arguments.metrics or (None if arguments.atd12k is None else atd12k.METRIC_NAMES)
    names = chosen_metrics(named, arguments.preset, with_clip=arguments.clip_weights is not None)
    specs = [MethodSpec.parse(text) for text in chosen_methods(arguments.methods, arguments.preset)]
    _check_triplets(arguments, names, specs)
    if arguments.against is not None:
        check_against(arguments.against, [spec.column for spec in specs])
    rule = WindowRule(arguments.frames, arguments.height, arguments.width, arguments.stride, arguments.start)
    size = {"frames": rule.frames, "height": rule.height, "width": rule.width}
    initialize(arguments.coordinator, arguments.num_processes, arguments.process_id)
    check_backend(arguments.attention, compute_dtype(arguments.dtype, jax.local_devices()), "--attention")
    enable_compilation_cache(arguments.compilation_cache)
    clips = _true_set(arguments, rule)
    shown = [clips.find(text) for text in arguments.show]
    metrics = make_metrics(names, _weights(arguments))

    def sampling(own: JsonObject) -> SamplingOptions:
        protocol = {} if arguments.atd12k is None else atd12k.SAMPLING
        return sampling_options(arguments, {**own, **protocol}, **size)

    extractor = cache(lambda: load_extractor(arguments.sketch_extractor, arguments.sketch_weights))
    how = {
        "prompts": not arguments.no_prompts,
        "dtype": arguments.dtype,
        "weight_dtype": arguments.weight_dtype,
        "attention": arguments.attention,
        "weights": arguments.metric_weights,
        "sketches": partial(_true_sketches, arguments, extractor),
    }
    methods: list[Method] = [spec.make(sampling, clips, **how) for spec in specs]
    if arguments.atd12k is not None:
        methods = [one if isinstance(one, Truth) else atd12k.MiddleFrames(one, rule.frames) for one in methods]
        metrics = [atd12k.OfMiddleFrames(metric) for metric in metrics]
    store = _store(arguments, clips, {method.name: method.settings() for method in methods})
    evaluation = Evaluation(
        clips, methods, metrics, store, batch=arguments.batch_size, keep_videos=not arguments.no_videos
    )
    with interruption_note("what is measured is kept, and the same command measures the rest"):
        measured = evaluation.run(_progress(arguments.quiet))
    if is_main_process():
        from tooncrafter_jax.evaluation.report import write_report

        request = {"methods": " ".join(spec.text for spec in specs), "metrics": " ".join(names)}
        print(f"report: {printable(write_report(evaluation, measured, request, shown, arguments.against))}")
    return EXIT_OK


def _check_truth(arguments: argparse.Namespace) -> None:
    """Raises UserError unless there is one truth, and a preset goes with it."""
    if (arguments.set is None) == (arguments.atd12k is None):
        raise UserError("give a SET of clips or --atd12k=DIR, one of them")
    if arguments.atd12k is not None and arguments.preset is not None:
        raise UserError(
            f"--preset={arguments.preset} names metrics of whole clips: with --atd12k give --metrics, of "
            f"{', '.join(atd12k.OF_ONE_FRAME)}, or leave both out"
        )


def _check_triplets(arguments: argparse.Namespace, metrics: Sequence[str], specs: Sequence[MethodSpec]) -> None:
    """Raises UserError for what triplets cannot be asked for."""
    if arguments.atd12k is None:
        return
    if arguments.stride != WindowRule.stride or arguments.start != WindowRule.start:
        raise UserError("--stride and --start choose frames of a set's clips: leave them out with --atd12k")
    if arguments.split != SPLIT:
        raise UserError("--split is that of a SET: leave it out with --atd12k, which has one test set")
    for name in metrics:
        if name not in atd12k.OF_ONE_FRAME:
            raise UserError(
                f"{name} is no metric of single frames: with --atd12k give {', '.join(atd12k.OF_ONE_FRAME)}"
            )
    for spec in specs:
        if spec.kind not in atd12k.METHOD_KINDS:
            raise UserError(
                f"'{spec.text}' is given true frames, and triplets have but one: leave it out with --atd12k"
            )


def _true_set(arguments: argparse.Namespace, rule: WindowRule) -> TrueSet:
    if arguments.atd12k is None:
        return TrueClips(ClipSet(arguments.set, arguments.split), rule, arguments.limit)
    prompts = not arguments.no_prompts
    return atd12k.Triplets(arguments.atd12k, rule.height, rule.width, arguments.limit, prompts=prompts)


def _weights(arguments: argparse.Namespace) -> MetricWeightFiles:
    if arguments.quick_gelu and arguments.clip_weights is None:
        raise UserError("--quick-gelu needs the weights of CLIP: give them with --clip-weights")
    clip = None if arguments.clip_weights is None else ClipWeights(arguments.clip_weights, arguments.quick_gelu)
    return MetricWeightFiles(arguments.metric_weights, clip)


def _true_sketches(
    arguments: argparse.Namespace, extractor: Callable[[], NetworkExtractor], own: Sequence[int] | None
) -> TrueSketches:
    """What guides models that are given sketches, of the frames of a method's own, if it has some."""
    weights, name = arguments.sketch_weights, arguments.sketch_extractor
    frames = own or arguments.sketch_frames or [arguments.frames // 2]
    title = name if weights is None else f"{name} of {weights.name}"
    return TrueSketches(extractor(), title, tuple(sorted(set(frames))))


def _store(arguments: argparse.Namespace, clips: TrueSet, methods: Mapping[str, JsonObject]) -> RowStore:
    """The directory; one process throws away what was there, before the others look."""
    as_now, request = partial(as_shown, SamplingOptions), {"clips": clips.fingerprint}
    store = None
    if is_main_process():
        check_writable(arguments.out)
        store = RowStore(arguments.out, request, methods, restart=arguments.overwrite, clips=clips.ids, as_now=as_now)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the directory is ready")
    return store or RowStore(arguments.out, request, methods, as_now=as_now)


def _progress(quiet: bool) -> Callable[[str, int, int], None]:
    if quiet or not is_main_process():
        return lambda method, done, total: None
    bar = tqdm(unit="batch", desc="evaluating", dynamic_ncols=True)

    def show(method: str, done: int, total: int) -> None:
        bar.total = total
        bar.set_postfix_str(method, refresh=False)
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return show
