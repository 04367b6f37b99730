"""`tooncrafter evaluate`: models, decoders and rivals measured on the same true clips."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jax
from jax.experimental import multihost_utils
from tqdm import tqdm

from tooncrafter_jax.cli.common import EXIT_OK, Parser, told_if_interrupted
from tooncrafter_jax.cli.sampling_options import add_sampling, sampling_options
from tooncrafter_jax.cli.vocabulary import (
    add_batch_size,
    add_clip_weights,
    add_compilation_cache,
    add_dtype,
    add_hosts,
    add_metric_weights,
    add_out,
    add_overwrite,
    add_quiet,
    add_size,
    add_split,
)
from tooncrafter_jax.curation.clip_model import ClipWeights
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.evaluation.methods import InBetweening, Model, Reconstruction, TrueSketches, checkpoint_told
from tooncrafter_jax.evaluation.metrics import METRICS, NEED_CLIP, MetricWeightFiles, make_metrics
from tooncrafter_jax.evaluation.rivals.registry import FACTORIES as RIVALS
from tooncrafter_jax.evaluation.rivals.registry import FOLDER, in_betweener
from tooncrafter_jax.evaluation.row_store import RowStore
from tooncrafter_jax.evaluation.run import Evaluation, Method, Truth
from tooncrafter_jax.evaluation.true_clips import Start, TrueClips, WindowRule
from tooncrafter_jax.io.atomic_files import check_writable
from tooncrafter_jax.io.paths import url_of
from tooncrafter_jax.nn.attention import Backend, check_backend
from tooncrafter_jax.notes import note
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.runtime.distributed import initialize, is_main_process
from tooncrafter_jax.sampling.model_loading import BUNDLED, compute_dtype, find_checkpoint
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sketches import EXTRACTORS, load_extractor

PROGRAM = "tooncrafter evaluate"
DESCRIPTION = f"""\
Lets models and rivals draw the clips of a set again from their first and last frames, measures all of them against the truth,
and writes OUT/report.md, OUT/report.json, plots and pictures.

  {PROGRAM} data/emoji --preset=table1 --methods truth still cross_fade flow_warp rife runs/rectify/export --out=runs/table1
  {PROGRAM} data/emoji --preset=table4 --methods reconstruction:runs/decoder/export --out=runs/table4

METHOD is one of
  truth                the true clips: what every metric gives for a perfect method
  still, cross_fade, flow_warp, rife, ...   rivals (see below)
  folder:DIR           videos made elsewhere, named by clip id
  DIR                  a ToonCrafter model: a checkpoint directory; or "small" for the bundled one
  sketched:DIR         that model, guided by sketches of true frames (--sketch-frames)
  reconstruction:DIR   that model's decoder on the latents of the true frames (Table 4 of the paper)
and NAME=METHOD gives it another name in the report.
"""
EPILOG = """\
A run that was stopped goes on with the same command; with more metrics it measures only those. Networks of metrics are fetched by
`tooncrafter fetch-metric-weights`.

exit codes: 0 done; 2 something is wrong with the request; 130 Ctrl-C
"""


@dataclass(frozen=True)
class Preset:
    """What a table or figure of the paper measures (spec section 10).

    Attributes:
      metrics: its columns.
      methods: rivals that can be had here, beside those that the user names.
      reconstructs: whether it is of decoders.
    """

    metrics: tuple[str, ...]
    methods: tuple[str, ...] = ()
    reconstructs: bool = False


PRESETS = {
    "table1": Preset(
        ("fvd", "kvd", "lpips_alexnet", "clip_image", "clip_text", "cpbd"),
        ("truth", "still", "cross_fade", "flow_warp", "rife"),
    ),
    "table3": Preset(("fvd", "clip_image"), ("truth",)),
    "table4": Preset(("psnr", "ssim", "lpips_alexnet"), reconstructs=True),
    "figure8": Preset(("psnr", "ssim", "lpips_alexnet", "colour_drift"), reconstructs=True),
}
DEFAULT_METRICS = ("fvd", "kvd", "lpips_alexnet", "psnr", "ssim", "cpbd", "key_frames", "colour_drift", "flicker")
DEFAULT_METHODS = ("truth", "still", "cross_fade", "flow_warp")


def build_parser() -> Parser:
    """All options with their defaults."""
    rule = WindowRule()
    parser = Parser(PROGRAM, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("set", type=Path, metavar="SET", help="clips as `curate` wrote them")
    add_out(parser.add_argument, "the report, numbers, plots and pictures", required=True)
    what = parser.add_argument_group("what is measured").add_argument
    what("--methods", nargs="+", metavar="METHOD", help=f"see above (default: {' '.join(DEFAULT_METHODS)})")
    what("--metrics", nargs="+", metavar="NAME", help=f"of {', '.join(METRICS)} (default: those that need no CLIP)")
    what("--preset", choices=PRESETS, metavar="NAME", help=f"the metrics of the paper's {', '.join(PRESETS)}")
    which = parser.add_argument_group("which clips").add_argument
    add_split(which, "test")
    which("--limit", type=int, default=0, metavar="N", help="so many clips, spread over the split; 0 for all")
    add_size(which, dataclasses.asdict(rule), "a clip", frames=True)
    which("--stride", type=int, default=rule.stride, metavar="N", help="step between frames (default: %(default)s)")
    which(
        "--start",
        choices=get_args(Start),
        default=rule.start,
        metavar="NAME",
        help=f"where in a clip the frames are taken: {', '.join(get_args(Start))} (default: %(default)s)",
    )
    how = parser.add_argument_group("how").add_argument
    add_batch_size(how, "clips", 4)
    how(
        "--show",
        nargs="+",
        default=[],
        metavar="ID",
        help="clips that the report shows whatever their numbers: parts of ids",
    )
    how("--no-videos", action="store_true", help="keep numbers alone, not what was made")
    add_overwrite(how)
    how("--no-prompts", action="store_true", help="models do not get the captions")
    how(
        "--sketch-frames",
        type=int,
        nargs="+",
        metavar="N",
        help="frames that sketched:DIR is given sketches of, from 0 (default: the middle one)",
    )
    how(
        "--sketch-extractor",
        choices=EXTRACTORS,
        default="hed",
        metavar="NAME",
        help=f"what draws them: {', '.join(EXTRACTORS)} (default: %(default)s)",
    )
    how("--sketch-weights", type=Path, metavar="FILE", help="of the extractor, where they are the user's to download")
    add_dtype(how)
    add_quiet(how)
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
    names = _metrics(arguments)
    specs = [MethodSpec.parse(text) for text in _methods(arguments)]
    rule = WindowRule(arguments.frames, arguments.height, arguments.width, arguments.stride, arguments.start)
    size = {"frames": rule.frames, "height": rule.height, "width": rule.width}
    initialize(arguments.coordinator, arguments.num_processes, arguments.process_id)
    check_backend(arguments.attention, compute_dtype(arguments.dtype, jax.local_devices()), "--attention")
    enable_compilation_cache(arguments.compilation_cache)
    clips = TrueClips(ClipSet(arguments.set, arguments.split), rule, arguments.limit)
    shown = [clips.find(text) for text in arguments.show]
    metrics = make_metrics(names, _weights(arguments))

    def sampling(own: Mapping[str, Any]) -> SamplingOptions:
        return sampling_options(arguments, own, **size)

    how = {
        "prompts": not arguments.no_prompts,
        "dtype": arguments.dtype,
        "attention": arguments.attention,
        "weights": arguments.metric_weights,
        "sketches": lambda: _true_sketches(arguments),
    }
    methods = [spec.make(sampling, clips, **how) for spec in specs]
    store = _store(arguments, {"clips": clips.fingerprint}, {method.name: method.settings() for method in methods})
    evaluation = Evaluation(
        clips, methods, metrics, store, batch=arguments.batch_size, keep_videos=not arguments.no_videos
    )
    with told_if_interrupted("what is measured is kept, and the same command measures the rest"):
        measured = evaluation.run(_progress(arguments.quiet))
    if is_main_process():
        from tooncrafter_jax.evaluation.report import write_report

        request = {"methods": " ".join(spec.text for spec in specs), "metrics": " ".join(names)}
        print(f"report: {printable(write_report(evaluation, measured, request, shown))}")
    return EXIT_OK


@dataclass(frozen=True)
class MethodSpec:
    """A method as the command line names it.

    Attributes:
      text: as given.
      name: what it is called in the report; empty for its own name.
      kind: `truth`, `rival`, `model`, `sketched` or `reconstruction`.
      value: a rival's name, or a directory.
    """

    text: str
    name: str
    kind: str
    value: str

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Reads [NAME=]METHOD.

        Raises:
          UserError: it is none of the methods, naming the nearest.
        """
        match = re.fullmatch(r"(?:([\w. +-]+)=)?(.+)", text)
        if match is None:
            raise UserError(f"'{text}' is not a method of the form METHOD or NAME=METHOD")
        name, method = match[1] or "", match[2]
        prefix, _, rest = method.partition(":")
        if method == Truth.name:
            return cls(text, name, "truth", "")
        if prefix in ("reconstruction", "sketched"):
            return cls(text, name, prefix, rest)
        if method.startswith(FOLDER) or method in RIVALS:
            return cls(text, name, "rival", method)
        if not url_of(method) and not Path(method).exists() and not (BUNDLED / method).exists():
            near = difflib.get_close_matches(method, ["truth", *RIVALS], n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(
                f"there is no method '{method}': {hint}give {', '.join(['truth', *RIVALS])}, folder:DIR, sketched:DIR, "
                "reconstruction:DIR or a model's directory"
            )
        return cls(text, name, "model", method)

    def make(
        self,
        sampling: Callable[[Mapping[str, Any]], SamplingOptions],
        clips: TrueClips,
        *,
        prompts: bool,
        dtype: str | None,
        attention: Backend,
        weights: Path | None,
        sketches: Callable[[], TrueSketches],
    ) -> Method:
        """The method, after finding out that it can make the clips.

        Args:
          sampling: how a model samples, given the options that suit it.
          clips: the truth.
          prompts: whether models get the captions.
          dtype: in which models compute; by default that of the device.
          attention: the back end that models compute attention with where it can be.
          weights: the directory of rivals' networks; by default where they are fetched to.
          sketches: makes what guides a model with `sketched`.

        Raises:
          UserError: something that it needs is missing, or it cannot make clips of this kind.
        """
        if self.kind == "truth":
            return Truth()
        if self.kind == "rival":
            return InBetweening(in_betweener(self.value, weights=weights), clips.ids, self.name)
        name = self.name or _name_of(Path(self.value))
        if self.kind == "reconstruction":
            return Reconstruction(self.value, name, attention)
        checkpoint = find_checkpoint(self.value)
        options = sampling(checkpoint.sampling)
        options.check(checkpoint.config)  # what cannot be is told before anything is loaded
        toon = ToonCrafter.load(self.value, dtype=dtype, devices=jax.local_devices(), attention=attention)
        guides = None
        if self.kind == "sketched":
            name, guides = self.name or f"{name}+sketches", sketches()
        told = checkpoint_told(checkpoint)
        return Model(toon, name, options, with_prompts=prompts, sketches=guides, told=told)


def _name_of(directory: Path) -> str:
    """A checkpoint's name in a report: its directory's, or that of the run whose export it is."""
    path = directory.absolute()
    return path.parent.name if path.name == "export" else path.name


def _methods(arguments: argparse.Namespace) -> Sequence[str]:
    preset = PRESETS.get(arguments.preset)
    if preset is None:
        return arguments.methods or DEFAULT_METHODS
    if preset.reconstructs and not any("reconstruction:" in text for text in arguments.methods or ()):
        raise UserError(f"--preset={arguments.preset} compares decoders: give --methods reconstruction:DIR ...")
    return [*preset.methods, *(text for text in arguments.methods or () if text not in preset.methods)]


def _metrics(arguments: argparse.Namespace) -> list[str]:
    """The metrics that were asked for; a preset's that need CLIP are left out, with a note, where no weights are given."""
    if arguments.metrics and arguments.preset:
        raise UserError("--metrics and --preset exclude each other: a preset is a list of metrics")
    names = list(arguments.metrics or DEFAULT_METRICS)
    if arguments.preset:
        names = list(PRESETS[arguments.preset].metrics)
        if arguments.clip_weights is None and (without := [name for name in names if name in NEED_CLIP]):
            note(f"{' and '.join(without)} need the weights of CLIP (--clip-weights) and are left out")
            names = [name for name in names if name not in NEED_CLIP]
    elif arguments.clip_weights is None and (without := [name for name in names if name in NEED_CLIP]):
        raise UserError(
            f"{' and '.join(without)} need the weights of CLIP: give them with --clip-weights, or leave these metrics out"
        )
    return list(dict.fromkeys(names))


def _weights(arguments: argparse.Namespace) -> MetricWeightFiles:
    if arguments.quick_gelu and arguments.clip_weights is None:
        raise UserError("--quick-gelu needs the weights of CLIP: give them with --clip-weights")
    clip = None if arguments.clip_weights is None else ClipWeights(arguments.clip_weights, arguments.quick_gelu)
    return MetricWeightFiles(arguments.metric_weights, clip)


def _true_sketches(arguments: argparse.Namespace) -> TrueSketches:
    """What guides models that are given sketches."""
    weights, name = arguments.sketch_weights, arguments.sketch_extractor
    frames = arguments.sketch_frames or [arguments.frames // 2]
    told = name if weights is None else f"{name} of {weights.name}"
    return TrueSketches(load_extractor(name, weights), told, tuple(sorted(set(frames))))


def _store(arguments: argparse.Namespace, request: Mapping[str, Any], methods: Mapping[str, Any]) -> RowStore:
    """The directory; one process throws away what was there, before the others look."""
    store = None
    if is_main_process():
        check_writable(arguments.out)
        store = RowStore(arguments.out, request, methods, restart=arguments.overwrite)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the directory is ready")
    return store or RowStore(arguments.out, request, methods)


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
