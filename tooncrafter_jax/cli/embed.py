"""`tooncrafter curate embed`: runs the frozen encoders over a set once, so that training need not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tooncrafter_jax.cli.common import EXIT_OK, Parser
from tooncrafter_jax.cli.curation_options import add_shard_size, checked_shard_bytes, defaults_of
from tooncrafter_jax.cli.vocabulary import (
    add_batch_size,
    add_dtype,
    add_out,
    add_quiet,
    add_shared,
    add_size,
    add_split,
    add_stored_dtype,
    check_at_least_one,
)
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.errors import UserError, printable

DESCRIPTION = """\
Runs the frozen encoders over a split of a set and writes what training needs of them: the autoencoder's moments of
every frame, CLIP's tokens of the frames that examples may start at, and text tokens. The steps of training that reads
them (--config.data.embeddings=DIR) encode nothing but the two references of decoder and joint; validation and samples
still encode pictures.

  tooncrafter curate embed data/cartoons --model=models/tooncrafter --out=data/cartoons/train_512

Examples that are trained on must have the same size, and start at multiples of --start-multiple. At 320x512 a frame
takes 41 KB and a start 658 KB, so --start-multiple=16 makes a set a tenth as large.
A run that was stopped goes on where it was. Several machines share a set with --part=0/4 to --part=3/4 and one
--out."""


def build_parser() -> Parser:
    """All options with their defaults."""
    from tooncrafter_jax.data.embedding_writer import SHARD_BYTES
    from tooncrafter_jax.data.embeddings import EmbeddingConfig

    default = defaults_of(EmbeddingConfig)
    parser = Parser("tooncrafter curate embed", description=DESCRIPTION)
    parser.add_argument("set", type=Path, metavar="SET", help="what --out was when the set was made")
    add = parser.add_argument_group("which, and where it goes").add_argument
    add_shared(add, "--model", ", whose encoders are run", required=True, metavar="DIR")
    add_out(add, "one directory for each split and size", required=True)
    add_split(add, "train")
    add("--part", default="0/1", metavar="P/N", help="make the P-th of N parts, counted from 0 (default: all)")
    add(
        "--skip-damaged",
        action="store_true",
        help="leave damaged clips out, of training too, where the default is to stop",
    )
    add = parser.add_argument_group("what is stored").add_argument
    add_size(add, default, "an example", frames=True)
    add("--antialias", action="store_true", help="when shrinking; the published recipe does not")
    add(
        "--start-multiple",
        type=int,
        default=default["start_multiple"],
        metavar="N",
        help="examples start at every N-th frame (default: %(default)s)",
    )
    add_stored_dtype(add, ("float16", "bfloat16", "float32"), str(default["dtype"]))
    add = parser.add_argument_group("how").add_argument
    add_dtype(add, ("float32", "bfloat16"))
    add_batch_size(add, "frames, over all devices", 16)
    add("--threads", type=int, default=2, metavar="N", help="clips decoded ahead (default: %(default)s)")
    add_shard_size(add, SHARD_BYTES)
    add_quiet(add)
    return parser


def main(argv: list[str]) -> int:
    """Writes embeddings; see `--help`."""
    from tooncrafter_jax.data.embedding_writer import embed
    from tooncrafter_jax.data.embeddings import EmbeddingConfig

    arguments = build_parser().parse_args(argv)
    check_at_least_one(arguments, "batch_size", "threads")
    shard_bytes = checked_shard_bytes(arguments)
    clips = ClipSet(arguments.set, arguments.split)
    complete = embed(
        clips,
        arguments.model,
        arguments.out,
        EmbeddingConfig(
            height=arguments.height,
            width=arguments.width,
            antialias=arguments.antialias,
            frames=arguments.frames,
            start_multiple=arguments.start_multiple,
            dtype=arguments.stored_dtype,
        ),
        part=_part(arguments.part),
        frames_per_batch=arguments.batch_size,
        threads=arguments.threads,
        on_damaged="skip" if arguments.skip_damaged else "fail",
        dtype=arguments.dtype,
        shard_bytes=shard_bytes,
        on_progress=None if arguments.quiet else _tell,
    )
    state = f"all {len(clips)} clips" if complete else "this part is done; other parts are missing still"
    print(f"{printable(arguments.out)}: {state}")
    return EXIT_OK


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise UserError(f"--part={text} is not of the form P/N, e.g. 0/4")
    return int(found[1]), int(found[2])


def _tell(done: int, clips: int) -> None:
    print(f"{done}/{clips}", file=sys.stderr, flush=True)
