"""The options of `tooncrafter sample`, group by group."""

from __future__ import annotations

from pathlib import Path

from tooncrafter_jax.cli.declared_options import add_declared
from tooncrafter_jax.cli.sampling_options import OF_THE_CLIP
from tooncrafter_jax.cli.vocabulary import (
    MEANINGS,
    Add,
    add_compilation_cache,
    add_dtype,
    add_hosts,
    add_memory,
    add_out,
    add_quiet,
    add_shared,
    add_weight_dtype,
)
from tooncrafter_jax.io.formats import DEFAULT_FORMAT, FORMATS
from tooncrafter_jax.io.timesheets import TIMESHEETS
from tooncrafter_jax.models.configuration import PRESETS
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.prompt_folders import ORDERS
from tooncrafter_jax.sampling.model_loading import DEFAULT_MODEL
from tooncrafter_jax.sampling.request import Pair, SamplingOptions


def add_pictures(add: Add) -> None:
    """The pictures of a single clip, and what guides it."""
    add("--first", type=Path, metavar="PICTURE", help="first picture of a single pair")
    add("--last", type=Path, metavar="PICTURE", help="last picture of a single pair")
    add_declared(add, Pair, ["prompt", "negative_prompt"])
    add(
        "--sketch",
        action="append",
        default=[],
        metavar="FRAME:PICTURE",
        help="a drawing that guides one frame, e.g. 7:middle.png; frames count from 0; may be given several times",
    )
    add(
        "--reference",
        action="append",
        default=[],
        type=Path,
        metavar="PICTURE",
        help="colours the sketches of a clip: its first frame in colours, or, given twice, its first and its last; "
        "with --sketches",
    )
    add(
        "--sketches",
        type=Path,
        metavar="DIR",
        help="with --reference: a folder with a sketch for each frame, in the order of the numbers in their names; "
        "some may be blank",
    )
    add(
        "--draft",
        type=Path,
        metavar="DIR",
        help="a rough version of the clip to be drawn anew with a --strength below 1: a folder with a picture for each "
        "frame, in the order of the numbers in their names",
    )
    add("--dark-sketches", action="store_true", help="sketches have dark lines on white (default: as each shows)")
    add("--bright-sketches", action="store_true", help="sketches have bright lines on black")


def add_lists(add: Add) -> None:
    """The pictures of many clips, and what all of them are."""
    add(
        "--folder",
        type=Path,
        metavar="DIR",
        help="prompts.txt (or another .txt file) with one prompt a line, and two pictures for each, in the order of "
        "their names "
        "[--prompt_dir]",
    )
    add(
        "--order",
        choices=ORDERS,
        metavar="NAME",
        help="of a folder's pictures: numbers puts 2.png before 10.png, text 10.png before 2.png as the published "
        "script does "
        "(default: numbers)",
    )
    add(
        "--manifest",
        type=Path,
        metavar="FILE",
        help='a line of JSON for each clip: {"first": "a.png", "last": "b.png"} and, if wanted, "prompt", '
        '"negative_prompt", "sketches": {"7": "c.png"}, "draft" (a folder), "seed", "fps", "name"; for sketches to be '
        'coloured: {"references": ["a.png"], "sketches": "DIR"}; or for a shot: '
        '{"keys": {"0": "a.png", "24": "b.png"}} or {"timesheet": "cut.xdts"} and, beside these, "timing", "exposure"; '
        "paths are relative to the file",
    )
    add(
        "--loop",
        action="store_true",
        help="each clip ends as it begins: takes one picture instead of two, and drops the repeated last frame; of a "
        "shot, the last key is the first again [--loop]",
    )


def add_files(add: Add) -> None:
    """Where the result goes, and as what."""
    add_out(add, "a file for a single pair, else a directory [--savedir]", "PATH")
    add(
        "--format",
        default="",
        metavar="LIST",
        help=f"one or more of {','.join(FORMATS)}; png makes a folder of frames, {', '.join(TIMESHEETS)} a folder each "
        f"with a time sheet and its drawings (default: by the ending of --out, else {DEFAULT_FORMAT})",
    )
    add_declared(add, OutputPlan)
    add_quiet(add)


def add_model(add: Add) -> None:
    """What draws."""
    add(
        "--model",
        metavar="DIR|NAME",
        help=f"{MEANINGS['--model']}, that `tooncrafter convert` or `tooncrafter train` wrote, or the name of the "
        "bundled one or, as OWNER/NAME[@REVISION][/FILE], of a published one [--ckpt_path] (default: "
        f"{DEFAULT_MODEL})",
    )
    add(
        "--random-weights",
        metavar="ARCHITECTURE",
        help=f"instead of --model: random weights, which draw noise, to try things out; {' or '.join(PRESETS)}",
    )
    add("--lora", metavar="FILE", help="low-rank factors that training wrote (lora.safetensors), merged into the model")
    add_dtype(add)
    add_weight_dtype(add)
    add_memory(add)


def add_places(add: Add) -> None:
    """Where it runs."""
    add(
        "--server",
        metavar="URL",
        help="draw with a server that `tooncrafter app` runs, --model being one of its names; several pairs and shots "
        "wait there at a time, and a token that it needs is taken from $TOONCRAFTER_TOKEN",
    )
    add_hosts(add)
    add_compilation_cache(add)


def add_how(add: Add) -> None:
    """How it is drawn, beside what every command that samples asks."""
    add_declared(add, Pair, ["seed"])
    add(
        "--samples-per-pair",
        type=int,
        default=1,
        metavar="N",
        help="clips of each pair, with seeds counting up from --seed [--n_samples] (default: %(default)s)",
    )
    add(
        "--pick",
        type=int,
        metavar="M",
        help="draw the --samples-per-pair together, keep the best M of them by what is measured of each, and write a "
        "sheet of all (default: keep all)",
    )
    more = ": pairs, or clips of a shot [--bs] (default: 1 pair; of a shot, one for each gap)"
    add_shared(add, "--batch-size", more, type=int, default=None, metavar="N")
    add_declared(add, Pair, ["fps"])
    add_declared(add, SamplingOptions, OF_THE_CLIP)
