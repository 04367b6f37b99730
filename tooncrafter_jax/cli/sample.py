"""The command line of `sample.py`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax.numpy as jnp
from tqdm import tqdm

from tooncrafter_jax import media
from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK
from tooncrafter_jax.cli.jobs import Job, folder_jobs, manifest_jobs, parse_sketches, with_variations
from tooncrafter_jax.cli.outputs import FORMATS, OutputPlan, record_of, request_of
from tooncrafter_jax.compilation_cache import enable_compilation_cache
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import PRESETS
from tooncrafter_jax.pipeline import Progress, ToonCrafter, default_dtype
from tooncrafter_jax.requests import Pair, SamplingOptions, prepare

DTYPES = ("float32", "bfloat16", "float16")

DESCRIPTION = """\
Two drawings in, one video out. Names in [brackets] are those of the published script.

  python sample.py --first=a.png --last=b.png --prompt="walking man" --out=ab.mp4
  python sample.py --folder=prompts/ --out=results/        a prompts.txt and two pictures a line
  python sample.py --manifest=shots.jsonl --out=results/   one JSON object a line
"""


def build_parser() -> argparse.ArgumentParser:
    """All options with their defaults (spec section 11.1; where `run.sh` and the script differ, `run.sh`'s)."""
    defaults = SamplingOptions()
    parser = argparse.ArgumentParser(
        "sample.py", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what to draw")
    what.add_argument("--first", type=Path, help="first picture of a single pair")
    what.add_argument("--last", type=Path, help="last picture")
    what.add_argument("--prompt", default="", help="what happens between them [--text_input]")
    what.add_argument(
        "--sketch",
        action="append",
        default=[],
        metavar="FRAME:PATH",
        help="a drawing that guides a frame, counted from 0; may be repeated",
    )
    what.add_argument(
        "--bright-sketches",
        action="store_true",
        help="sketches have bright lines on black (default: dark lines on white)",
    )
    what.add_argument("--folder", type=Path, help="a folder with a prompts .txt and pictures [--prompt_dir]")
    what.add_argument(
        "--manifest",
        type=Path,
        help='JSON lines: {"first", "last", "prompt", "sketches": {"7": path}, "seed", "fps", "name"}',
    )
    what.add_argument(
        "--loop",
        action="store_true",
        help="each clip ends where it began and drops the repeated frame; takes one picture [--loop]",
    )

    out = parser.add_argument_group("where it goes")
    out.add_argument("--out", type=Path, help="a file for a single pair, a directory else [--savedir]")
    out.add_argument(
        "--format",
        default="",
        help=f"comma-separated, of {', '.join(FORMATS)}; png is a folder of frames (default: by the name of --out, else mp4)",
    )
    out.add_argument("--contact-sheet", action="store_true", help="also a PNG with all frames")
    out.add_argument(
        "--playback-fps",
        type=float,
        default=8,
        help="of the files; unlike --fps, it does not change the motion (default: %(default)s)",
    )
    out.add_argument("--quiet", action="store_true", help="no progress bar")

    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model",
        default="small",
        help="a checkpoint directory made by `python -m tooncrafter_jax convert`, or a bundled model's name [--ckpt_path] (default: %(default)s)",
    )
    model.add_argument(
        "--random-weights",
        metavar="PRESET",
        help=f"random weights of an architecture, for a trial without weights: {', '.join(PRESETS)}",
    )
    model.add_argument(
        "--dtype", choices=DTYPES, help="of the computation (default: float32 on the CPU, bfloat16 elsewhere)"
    )

    how = parser.add_argument_group("how to sample")
    how.add_argument("--seed", type=int, default=123, help="[--seed] (default: %(default)s)")
    how.add_argument(
        "--samples-per-pair",
        type=int,
        default=1,
        help="clips with seeds counting up [--n_samples] (default: %(default)s)",
    )
    how.add_argument("--batch-size", type=int, default=1, help="pairs at a time [--bs] (default: %(default)s)")
    how.add_argument("--steps", type=int, default=defaults.steps, help="[--ddim_steps] (default: %(default)s)")
    how.add_argument("--eta", type=float, default=defaults.eta, help="[--ddim_eta] (default: %(default)s)")
    how.add_argument(
        "--guidance-scale",
        type=float,
        default=defaults.guidance_scale,
        help="[--unconditional_guidance_scale] (default: %(default)s)",
    )
    how.add_argument(
        "--guidance-rescale",
        type=float,
        default=defaults.guidance_rescale,
        help="[--guidance_rescale] (default: %(default)s)",
    )
    how.add_argument(
        "--image-guidance-scale",
        type=float,
        help="guide by the picture and by the prompt apart [--multiple_cond_cfg --cfg_img]",
    )
    how.add_argument(
        "--fps",
        type=int,
        default=10,
        help="what the model is told, 5 to 30; smaller means larger motion [--frame_stride] (default: %(default)s)",
    )
    how.add_argument(
        "--spacing",
        default=defaults.spacing,
        help="uniform_trailing or uniform [--timestep_spacing] (default: %(default)s)",
    )
    how.add_argument(
        "--exact-last-step", action="store_true", help="end at the clean latent, unlike the published sampler"
    )
    how.add_argument("--frames", type=int, default=defaults.frames, help="[--video_length] (default: %(default)s)")
    how.add_argument("--height", type=int, help="pixels (default: the model's) [--height]")
    how.add_argument("--width", type=int, help="pixels (default: the model's) [--width]")
    how.add_argument(
        "--fit", default=defaults.fit, help="crop as published, or pad to keep whole pictures (default: %(default)s)"
    )
    how.add_argument(
        "--control-scale",
        type=float,
        default=defaults.control_scale,
        help="strength of the sketches (default: %(default)s)",
    )
    how.add_argument("--no-second-pass", action="store_true", help="do not decode the two middle frames a second time")
    how.add_argument(
        "--decode-frames-per-chunk",
        type=int,
        default=defaults.decode_frames_per_chunk,
        help="bounds the decoder's memory; same result [--perframe_ae] (default: %(default)s)",
    )
    return parser


@dataclass
class Outcome:
    """How a run went.

    Attributes:
      made, skipped: names of clips.
      failed: name -> what was wrong.
    """

    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def main(argv: list[str]) -> int:
    """Samples what the arguments ask for.

    Returns:
      0; 1 if pairs of a folder or manifest failed. A mistake in the arguments raises `UserError`.
    """
    arguments = build_parser().parse_args(argv)
    options = _options(arguments)
    jobs, plan = _jobs_and_plan(arguments)
    several = arguments.first is None
    media.check_writable(plan.directory)
    dtype = arguments.dtype or default_dtype()
    model = f"random:{arguments.random_weights}" if arguments.random_weights else str(arguments.model)
    enable_compilation_cache()
    toon = _load(arguments, dtype)
    options.check(toon.config)

    outcome, todo = Outcome(), []
    for job in jobs:
        if several and plan.is_done(job.name, request_of(job.pair, options, model, dtype)):
            outcome.skipped.append(job.name)
        else:
            todo.append(job)
    size = arguments.batch_size
    for start in range(0, len(todo), size):
        batch = todo[start : start + size]
        if several:
            batch = [job for job in batch if _is_usable(job, options, toon, outcome)]
        if batch:
            with _bar(
                f"{len(outcome.made) + len(outcome.skipped) + 1}/{len(jobs)} {batch[0].name}", options, arguments.quiet
            ) as bar:
                _make(batch, options, plan, toon, model, dtype, bar, outcome, several)
    return _report(outcome, plan, several)


def _options(arguments: argparse.Namespace) -> SamplingOptions:
    return SamplingOptions(
        steps=arguments.steps,
        eta=arguments.eta,
        guidance_scale=arguments.guidance_scale,
        guidance_rescale=arguments.guidance_rescale,
        image_guidance_scale=arguments.image_guidance_scale,
        spacing=arguments.spacing,
        exact_last_step=arguments.exact_last_step,
        frames=arguments.frames,
        height=arguments.height,
        width=arguments.width,
        fit=arguments.fit,
        control_scale=arguments.control_scale,
        second_pass=not arguments.no_second_pass,
        decode_frames_per_chunk=arguments.decode_frames_per_chunk,
    )


def _jobs_and_plan(arguments: argparse.Namespace) -> tuple[list[Job], OutputPlan]:
    given = [name for name in ("first", "folder", "manifest") if getattr(arguments, name) is not None]
    if len(given) != 1:
        raise UserError(
            "give one of --first with --last, --folder, or --manifest"
            + (f", not {' and '.join(given)}" if given else "")
        )
    if arguments.out is None:
        raise UserError("say where the result goes with --out")
    for name in ("samples_per_pair", "batch_size"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(arguments, name)}")
    formats = tuple(dict.fromkeys(part.strip() for part in arguments.format.split(",") if part.strip()))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"unknown format '{unknown[0]}': choose of {', '.join(FORMATS)}")
    sketches = parse_sketches(arguments.sketch, bright=arguments.bright_sketches)
    template = Pair(Path(), Path(), arguments.prompt, None, arguments.seed, arguments.fps)
    directory: Path = arguments.out
    if arguments.first is not None:
        last = arguments.first if arguments.loop else arguments.last
        if last is None:
            raise UserError("--first needs --last (or --loop)")
        directory, name, ending = _single_output(arguments.out, formats)
        formats = tuple(dict.fromkeys((*ending, *formats)))
        jobs = [Job(name, template._replace(first=arguments.first, last=last, sketches=sketches))]
    elif sketches:
        raise UserError("--sketch goes with --first; in a manifest every pair has its own sketches")
    elif arguments.folder is not None:
        jobs = folder_jobs(arguments.folder, template, loop=arguments.loop)
    else:
        jobs = manifest_jobs(arguments.manifest, template, bright_sketches=arguments.bright_sketches)
    plan = OutputPlan(directory, formats or ("mp4",), arguments.contact_sheet, arguments.playback_fps, arguments.loop)
    return with_variations(jobs, arguments.samples_per_pair), plan


def _single_output(out: Path, formats: Sequence[str]) -> tuple[Path, str, tuple[str, ...]]:
    """Directory, stem and format that --out stands for with a single pair."""
    ending = out.suffix.removeprefix(".").lower()
    if ending in FORMATS and ending != "png":
        return out.parent, out.stem, (ending,)
    if ending:
        raise UserError(
            f"--out={out} ends in .{ending}: use .mp4, .gif or .webp, or --format=png for a folder of frames"
        )
    return out.parent, out.name, () if formats else ("mp4",)


def _load(arguments: argparse.Namespace, dtype: str) -> ToonCrafter:
    if arguments.random_weights:
        toon = ToonCrafter.random(arguments.random_weights, dtype=dtype)
        print(f"note: '{arguments.random_weights}' has random weights: what it draws is noise", file=sys.stderr)
        return toon
    return ToonCrafter.load(arguments.model, dtype=jnp.dtype(dtype))


def _bar(title: str, options: SamplingOptions, quiet: bool) -> tqdm:
    return tqdm(total=options.steps, desc=title, unit="step", disable=quiet, leave=False)


def _is_usable(job: Job, options: SamplingOptions, toon: ToonCrafter, outcome: Outcome) -> bool:
    """Whether a pair can be sampled; notes what is wrong if not."""
    try:
        prepare(job.pair, options, toon.config)
    except UserError as error:
        outcome.failed[job.name] = str(error)
        return False
    return True


def _make(
    batch: list[Job],
    options: SamplingOptions,
    plan: OutputPlan,
    toon: ToonCrafter,
    model: str,
    dtype: str,
    bar: tqdm,
    outcome: Outcome,
    several: bool,
) -> None:
    """Samples a batch and writes its files; in a run of several a failure is noted and the run goes on."""

    def on_progress(progress: Progress) -> None:
        bar.total = progress.total
        bar.update(progress.done - bar.n)

    start = time.perf_counter()
    try:
        videos = toon.interpolate_pairs([job.pair for job in batch], options, on_progress=on_progress)
        seconds = (time.perf_counter() - start) / len(batch)
        for job, video in zip(batch, videos, strict=True):
            plan.write(job.name, video, record_of(request_of(job.pair, options, model, dtype), toon, seconds))
            outcome.made.append(job.name)
    except UserError as error:
        if not several:
            raise
        outcome.failed.update({job.name: str(error) for job in batch if job.name not in outcome.made})


def _report(outcome: Outcome, plan: OutputPlan, several: bool) -> int:
    if not several:
        for name in outcome.made:
            print("\n".join(str(path) for path in plan.paths(name).values()))
        return EXIT_OK
    print(
        f"{plan.directory}: {len(outcome.made)} made, {len(outcome.skipped)} done before, {len(outcome.failed)} failed"
    )
    for name, reason in outcome.failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return EXIT_FAILED if outcome.failed else EXIT_OK
