"""`tooncrafter sample`: two drawings, or many pairs of them, into videos."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from tooncrafter_jax.cli.batch_report import Terminal, report
from tooncrafter_jax.cli.common import Parser, interruption_note
from tooncrafter_jax.cli.sample_jobs import asked_for
from tooncrafter_jax.cli.sample_options import add_files, add_how, add_lists, add_model, add_pictures, add_places
from tooncrafter_jax.cli.sample_places import check_of_server, leave_devices, local_place, served_place
from tooncrafter_jax.cli.sampling_options import add_sampling, sampling_options
from tooncrafter_jax.cli.shot_options import add_shot, check_shot_options
from tooncrafter_jax.cli.vocabulary import Add, check_at_least_one
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import PUBLISHED_PIXEL_FORMAT
from tooncrafter_jax.io.formats import DEFAULT_FORMAT
from tooncrafter_jax.io.images import check_is_picture_file
from tooncrafter_jax.notes import collected, note
from tooncrafter_jax.runtime.distributed import initialize, is_main_process
from tooncrafter_jax.sampling.batch.jobs import Job, with_fitting_names
from tooncrafter_jax.sampling.batch.making import BatchRequest, BatchResult
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.prompt_folders import shown_pairs
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.batch.selection import inputs_of
from tooncrafter_jax.sampling.batch.shot_jobs import with_scene_variations
from tooncrafter_jax.sampling.batch.shots import ShotRequest
from tooncrafter_jax.sampling.picking import Picking

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
  tooncrafter sample --server=http://draw.example:8512 --manifest=shots.jsonl --out=results/

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
KEPT_OF_SHOTS = "what was drawn is kept, and the same command goes on"
KEPT_OF_SERVER = "finished files are kept, the server was told to forget the rest, and the same command makes it"


def build_parser() -> Parser:
    """All options with their defaults (spec section 11.1; where `run.sh` and the script differ, `run.sh`'s)."""
    parser = Parser("tooncrafter sample", usage=USAGE, description=DESCRIPTION, epilog=EPILOG)

    def group(title: str) -> Add:
        return parser.add_argument_group(title).add_argument

    what = group("what to draw")
    add_pictures(what)
    add_lists(what)
    add_shot(group("a shot"))
    add_files(group("where it goes"))
    add_model(group("the model"))
    add_places(group("where it runs"))
    add_how(add_sampling(parser))
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
        check_of_server(arguments)
        leave_devices()
    else:
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
    artist, model, dtype = local_place(arguments) if arguments.server is None else served_place(arguments)
    options = sampling_options(arguments, model.sampling)
    options.check(model.config)
    inputs = [arguments.manifest] if arguments.manifest else []
    common = (several, options, plan, model, dtype, artist, inputs)
    size = arguments.batch_size
    listener, outcome = Terminal(plan, several, arguments.quiet), BatchResult(len(jobs))
    kept = KEPT_OF_SERVER if arguments.server is not None else KEPT_OF_SHOTS if shots else KEPT
    with interruption_note(kept), artist:
        if pairs:
            BatchRequest(pairs, *common, size).make(listener, outcome)
        if shots:
            rate_is_given = hasattr(arguments, "playback_fps")
            ShotRequest(shots, *common, size, rate_is_given).make(listener, outcome)
    return report(outcome, plan, several)


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
