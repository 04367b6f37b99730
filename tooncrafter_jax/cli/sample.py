"""`tooncrafter sample`: two drawings, or many pairs of them, into videos."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tooncrafter_jax.cli.batch_report import Terminal, report
from tooncrafter_jax.cli.common import Parser, interruption_note
from tooncrafter_jax.cli.declared_options import add_declared, given_options
from tooncrafter_jax.cli.sample_jobs import asked_for
from tooncrafter_jax.cli.sampling_options import OF_THE_CLIP, add_sampling, sampling_options
from tooncrafter_jax.cli.shot_options import add_shot, check_shot_options
from tooncrafter_jax.cli.vocabulary import (
    MEANINGS,
    add_compilation_cache,
    add_dtype,
    add_hosts,
    add_out,
    add_quiet,
    add_shared,
    check_at_least_one,
)
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import PUBLISHED_PIXEL_FORMAT
from tooncrafter_jax.io.formats import DEFAULT_FORMAT, FORMATS
from tooncrafter_jax.io.images import check_is_picture_file
from tooncrafter_jax.io.timesheets import TIMESHEETS
from tooncrafter_jax.models.configuration import PRESETS
from tooncrafter_jax.nn.attention import check_backend
from tooncrafter_jax.notes import collected, note
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.runtime.distributed import initialize, is_main_process
from tooncrafter_jax.sampling.batch.jobs import Job, with_fitting_names
from tooncrafter_jax.sampling.batch.making import BatchRequest, BatchResult
from tooncrafter_jax.sampling.batch.model_source import ModelSource
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.prompt_folders import ORDERS, shown_pairs
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.batch.selection import inputs_of
from tooncrafter_jax.sampling.batch.shot_jobs import with_scene_variations
from tooncrafter_jax.sampling.batch.shots import ShotRequest
from tooncrafter_jax.sampling.model_loading import DEFAULT_MODEL, default_dtype
from tooncrafter_jax.sampling.picking import Picking
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import Pair, SamplingOptions

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "demo.jsonl"
"""Beside the package, where that is used as it was cloned."""
DEMO = (f"--manifest={EXAMPLES}", "--out=demo", "--format=mp4,gif", "--contact-sheet", "--cross-fade")
"""What is drawn without arguments."""
USAGE = """\
tooncrafter sample --first=A.png --last=B.png --out=AB.mp4 [options]
       tooncrafter sample --keys=0:A.png,24:B.png,40:C.png --out=SHOT.mp4 [options]
       tooncrafter sample --timesheet=CUT.xdts --out=SHOT.mp4 [options]
       tooncrafter sample --reference=A.png --sketches=DIR --out=CLIP.mp4 [options]
       tooncrafter sample --folder=DIR --out=DIR [options]
       tooncrafter sample --manifest=FILE --out=DIR [options]"""
DESCRIPTION = """\
Two drawings in, one video out; or the keys of a shot in, on its own frames.

  tooncrafter sample --model=MODEL --first=a.png --last=b.png --prompt="walking man" --out=ab.mp4
  tooncrafter sample --model=MODEL --keys=0:a.png,24:b.png,40:c.png --timing=ease-in-out --exposure=2 --out=shot.mp4
  tooncrafter sample --model=MODEL --folder=prompts/ --out=results/
  tooncrafter sample --model=MODEL --manifest=shots.jsonl --out=results/

MODEL is a directory made by `tooncrafter convert`, or the name of a published model such as Doubiiu/ToonCrafter, which
is fetched once (`tooncrafter fetch --list`). Without --model the small model that comes with the package draws, at
128x128 pixels and on any laptop; in a clone of the repository, without any option, it draws the examples.

A folder or a manifest can be run again: clips that are done are skipped, and a pair that fails does not stop the rest.
Beside each clip, a .json file records how it was made.
Names in [brackets] are those of the published script's options.
"""
EPILOG = """\
Of the published script's other options, [--interp] is always on, and [--config] is part of the model directory.

exit codes: 0 done; 1 some pairs of a folder or manifest failed; 2 something is wrong with the request; 130 Ctrl-C
"""
KEPT = "finished files are kept, and the same command makes the rest"


def build_parser() -> Parser:
    """All options with their defaults (spec section 11.1; where `run.sh` and the script differ, `run.sh`'s)."""
    parser = Parser("tooncrafter sample", usage=USAGE, description=DESCRIPTION, epilog=EPILOG)

    what = parser.add_argument_group("what to draw").add_argument
    what("--first", type=Path, metavar="PICTURE", help="first picture of a single pair")
    what("--last", type=Path, metavar="PICTURE", help="last picture of a single pair")
    add_declared(what, Pair, ["prompt", "negative_prompt"])
    what(
        "--sketch",
        action="append",
        default=[],
        metavar="FRAME:PICTURE",
        help="a drawing that guides one frame, e.g. 7:middle.png; frames count from 0; may be given several times",
    )
    what(
        "--reference",
        action="append",
        default=[],
        type=Path,
        metavar="PICTURE",
        help="colours the sketches of a clip: its first frame in colours, or, given twice, its first and its last; "
        "with --sketches",
    )
    what(
        "--sketches",
        type=Path,
        metavar="DIR",
        help="with --reference: a folder with a sketch for each frame, in the order of the numbers in their names; "
        "some may be blank",
    )
    what(
        "--draft",
        type=Path,
        metavar="DIR",
        help="a rough version of the clip to be drawn anew with a --strength below 1: a folder with a picture for each "
        "frame, in the order of the numbers in their names",
    )
    what("--dark-sketches", action="store_true", help="sketches have dark lines on white (default: as each shows)")
    what("--bright-sketches", action="store_true", help="sketches have bright lines on black")
    what(
        "--folder",
        type=Path,
        metavar="DIR",
        help="prompts.txt (or another .txt file) with one prompt a line, and two pictures for each, in the order of "
        "their names "
        "[--prompt_dir]",
    )
    what(
        "--order",
        choices=ORDERS,
        metavar="NAME",
        help="of a folder's pictures: numbers puts 2.png before 10.png, text 10.png before 2.png as the published "
        "script does "
        "(default: numbers)",
    )
    what(
        "--manifest",
        type=Path,
        metavar="FILE",
        help='a line of JSON for each clip: {"first": "a.png", "last": "b.png"} and, if wanted, "prompt", '
        '"negative_prompt", "sketches": {"7": "c.png"}, "draft" (a folder), "seed", "fps", "name"; for sketches to be '
        'coloured: {"references": ["a.png"], "sketches": "DIR"}; or for a shot: '
        '{"keys": {"0": "a.png", "24": "b.png"}} or {"timesheet": "cut.xdts"} and, beside these, "timing", "exposure"; '
        "paths are relative to the file",
    )
    what(
        "--loop",
        action="store_true",
        help="each clip ends as it begins: takes one picture instead of two, and drops the repeated last frame; of a "
        "shot, the last key is the first again [--loop]",
    )
    add_shot(parser.add_argument_group("a shot").add_argument)

    out = parser.add_argument_group("where it goes").add_argument
    add_out(out, "a file for a single pair, else a directory [--savedir]", "PATH")
    out(
        "--format",
        default="",
        metavar="LIST",
        help=f"one or more of {','.join(FORMATS)}; png makes a folder of frames, {', '.join(TIMESHEETS)} a folder each "
        f"with a time sheet and its drawings (default: by the ending of --out, else {DEFAULT_FORMAT})",
    )
    add_declared(out, OutputPlan)
    add_quiet(out)

    model = parser.add_argument_group("the model").add_argument
    model(
        "--model",
        metavar="DIR|NAME",
        help=f"{MEANINGS['--model']}, that `tooncrafter convert` or `tooncrafter train` wrote, or the name of the "
        "bundled one or, as OWNER/NAME[@REVISION][/FILE], of a published one [--ckpt_path] (default: "
        f"{DEFAULT_MODEL})",
    )
    model(
        "--random-weights",
        metavar="ARCHITECTURE",
        help=f"instead of --model: random weights, which draw noise, to try things out; {' or '.join(PRESETS)}",
    )
    model(
        "--lora", metavar="FILE", help="low-rank factors that training wrote (lora.safetensors), merged into the model"
    )
    add_dtype(model)

    where = parser.add_argument_group("where it runs").add_argument
    where(
        "--server",
        metavar="URL",
        help="draw a single pair with a server that `tooncrafter app` runs, --model being one of its names; a token "
        "that it needs is taken from $TOONCRAFTER_TOKEN",
    )
    add_hosts(where)
    add_compilation_cache(where)

    how = add_sampling(parser)
    add_declared(how, Pair, ["seed"])
    how(
        "--samples-per-pair",
        type=int,
        default=1,
        metavar="N",
        help="clips of each pair, with seeds counting up from --seed [--n_samples] (default: %(default)s)",
    )
    how(
        "--pick",
        type=int,
        metavar="M",
        help="draw the --samples-per-pair together, keep the best M of them by what is measured of each, and write a "
        "sheet of all (default: keep all)",
    )
    more = ": pairs, or clips of a shot [--bs] (default: 1 pair; of a shot, one for each gap)"
    add_shared(how, "--batch-size", more, type=int, default=None, metavar="N")
    add_declared(how, Pair, ["fps"])
    add_declared(how, SamplingOptions, OF_THE_CLIP)
    return parser


def main(argv: list[str]) -> int:
    """Samples what the arguments ask for.

    Returns:
      0; 1 if pairs of a folder or manifest failed. A mistake in the arguments raises `UserError`.
    """
    is_demo = not argv and EXAMPLES.is_file()
    arguments = build_parser().parse_args(list(DEMO) if is_demo else argv)
    with collected() as decisions:  # which process says them is known when they have found each other
        jobs, plan = _jobs_and_plan(arguments)
    if arguments.server is not None:
        _check_remote(arguments)
    initialize(arguments.coordinator, arguments.num_processes, arguments.process_id)
    if is_demo and is_main_process():
        print(f"no pictures are given, so here are the examples: tooncrafter sample {shlex.join(DEMO)}")
    for sentence in decisions:
        note(sentence)
    if arguments.folder is not None and not arguments.quiet and is_main_process():
        print("\n".join(shown_pairs([job for job in jobs if isinstance(job, Job)])), file=sys.stderr)
    several = arguments.folder is not None or arguments.manifest is not None
    pairs = [job for job in jobs if isinstance(job, Job)]
    shots = [job for job in jobs if isinstance(job, SceneJob)]
    for picture in () if several else (*inputs_of(pairs[0].pair),) if pairs else shots[0].pictures():
        check_is_picture_file(os.fspath(picture))  # before a model is fetched
    if arguments.server is not None:
        return _draw_remotely(arguments, pairs, plan)
    dtype = arguments.dtype or default_dtype()
    check_backend(arguments.attention, dtype, "--attention")
    source = ModelSource(arguments.model or DEFAULT_MODEL, arguments.random_weights, arguments.lora, arguments.quiet)
    model = source.described()
    options = sampling_options(arguments, model.sampling)
    options.check(model.config)

    @functools.cache
    def load() -> ToonCrafter:
        enable_compilation_cache(arguments.compilation_cache)
        return source.load(dtype, arguments.attention)

    inputs = [arguments.manifest] if arguments.manifest else []
    common = (several, options, plan, model, dtype, load, inputs)
    size = arguments.batch_size
    listener, outcome = Terminal(plan, several, arguments.quiet), BatchResult(len(jobs))
    kept = "what was drawn is kept, and the same command goes on" if shots else KEPT
    with interruption_note(kept):
        if pairs:
            BatchRequest(pairs, *common, size).make(listener, outcome)
        if shots:
            rate_is_given = hasattr(arguments, "playback_fps")
            ShotRequest(shots, *common, size, rate_is_given).make(listener, outcome)
    return report(outcome, plan, several)


def _check_remote(arguments: argparse.Namespace) -> None:
    """Raises UserError for what a server does not do, or does as it was started."""
    given = {
        "--keys": arguments.keys,
        "--timesheet": arguments.timesheet,
        "--reference": arguments.reference or None,
        "--folder": arguments.folder,
        "--manifest": arguments.manifest,
        "--pick": arguments.pick,
        "--random-weights": arguments.random_weights,
        "--lora": arguments.lora,
        "--dtype": arguments.dtype,
        "--attention": None if arguments.attention == "auto" else arguments.attention,
        "--batch-size": arguments.batch_size,
        "--compilation-cache": arguments.compilation_cache,
        "--coordinator": arguments.coordinator,
        "--num-processes": arguments.num_processes,
        "--process-id": arguments.process_id,
    }
    for flag in (flag for flag, value in given.items() if value is not None):
        raise UserError(f"{flag} cannot be had of a --server: leave one of them out")


def _draw_remotely(arguments: argparse.Namespace, pairs: Sequence[Job], plan: OutputPlan) -> int:
    """Draws the clips of one pair with a server."""
    from tooncrafter_jax.serving.client import Client
    from tooncrafter_jax.serving.remote import RemoteRequest

    client = Client(arguments.server, token=os.environ.get("TOONCRAFTER_TOKEN", ""))
    options = given_options(arguments, SamplingOptions)
    listener, outcome = Terminal(plan, False, arguments.quiet), BatchResult(len(pairs))
    with interruption_note("the server was told to forget the job"):
        RemoteRequest(pairs, options, plan, client, arguments.model or "").make(listener, outcome)
    return report(outcome, plan, False)


def _jobs_and_plan(arguments: argparse.Namespace) -> tuple[list[Job | SceneJob], OutputPlan]:
    """The clips and their files."""
    check_shot_options(arguments)
    check_at_least_one(arguments, "samples_per_pair", *([] if arguments.batch_size is None else ["batch_size"]))
    asked = asked_for(arguments)
    count = arguments.samples_per_pair
    picking = None if arguments.pick is None else Picking(count, arguments.pick)
    if picking is not None and not all(isinstance(job, Job) for job in asked.jobs):
        raise UserError("--pick goes with pairs: of a shot, draw several by --samples-per-pair, and choose yourself")
    plan = OutputPlan(
        asked.directory,
        asked.formats or (DEFAULT_FORMAT,),
        endings=asked.endings,
        drop_last=arguments.loop,
        picking=picking,
        **asked.files,
    )
    if plan.cross_fade and not plan.contact_sheet:
        raise UserError("--cross-fade is shown on the contact sheet: add --contact-sheet")
    if plan.pixel_format != PUBLISHED_PIXEL_FORMAT and "mp4" not in plan.formats:
        raise UserError(
            f"--pixel-format={plan.pixel_format} is for mp4 files, of which none are written: add mp4 to --format"
        )
    count = 1 if picking is not None else count
    room = plan.longest_ending + (0 if count == 1 else len(f"_sample{count - 1}"))
    return with_scene_variations(with_fitting_names(asked.jobs, room), count), plan
