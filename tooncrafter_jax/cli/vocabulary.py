"""The options that several commands have: one name and one meaning for one idea, and what options were called before.

A command may say more behind the meaning. `tests/cli/test_vocabulary.py` fails where two commands use one name in two
ways.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tooncrafter_jax.errors import UserError

Add = Callable[..., object]
"""`add_argument` of a parser or of a group."""

MEANINGS = {
    "--out": "where the result goes",
    "--overwrite": "replace what is there",
    "--quiet": "show no progress",
    "--json": "also write the result there as JSON",
    "--model": "directory of a model",
    "--architecture": "of the model",
    "--dtype": "numbers to compute with",
    "--stored-dtype": "numbers that are written",
    "--attention": "what computes attention",
    "--weight-dtype": "numbers that hold the large weights on a device",
    "--memory": "how much of a device's memory the model takes",
    "--batch-size": "how many are worked on at a time",
    "--frames": "length of a clip",
    "--height": "pixels",
    "--width": "pixels",
    "--seed": "same seed, same clip",
    "--split": "which split of the set",
    "--config": "config file",
    "--clip-weights": "weights of CLIP",
    "--quick-gelu": "the weights of CLIP are of one of OpenAI's own models",
    "--packages": "the packages on this disk, instead of fetching them",
    "--metric-weights": "the directory of the networks that fetch-metric-weights fetches",
    "--workers": "processes that share the work",
    "--shard-megabytes": "size of the files that are written",
    "--compilation-cache": "where compiled programs are kept for the next run",
    "--coordinator": "on several hosts, each of which runs the same command: address of the first process",
    "--num-processes": "with --coordinator: how many processes there are",
    "--process-id": "with --coordinator: which one this is",
}
"""An option -> how its help begins, in whatever command."""

FORMER_NAMES = {
    "--batch": "--batch-size",
    "--cache": "--metric-weights",
    "--clip": "--clip-weights",
    "--config": "--architecture",
    "--dtype": "--stored-dtype",
    "--preset": "--architecture",
    "--restart": "--overwrite",
    "--stored": "--stored-dtype",
}
"""What an option was called -> what it is called, in the commands that have the second and not the first."""


def renamed(args: Sequence[str], known: Collection[str]) -> str | None:
    """A sentence about the first argument that is a former name of an option.

    Args:
      args: of the command.
      known: the command's options.
    """
    for arg in args:
        if arg == "--":
            break
        name = arg.partition("=")[0]
        if name not in known and FORMER_NAMES.get(name) in known:
            return f"'{name}' is called {FORMER_NAMES[name]} now"
    return None


def add_shared(add: Add, name: str, more: str = "", **settings: object) -> None:
    """Adds an option that other commands have too.

    Args:
      add: `add_argument` of a parser or of a group.
      name: one of `MEANINGS`.
      more: what follows the meaning in the help, with what separates it.
      **settings: as for `add`.
    """
    add(name, help=MEANINGS[name] + more, **settings)


def add_out(add: Add, what: str, metavar: str = "DIR", **settings: object) -> None:
    """The option --out; `what` says what the result is."""
    add_shared(add, "--out", f": {what}", type=Path, metavar=metavar, **settings)


def add_quiet(add: Add) -> None:
    """The option --quiet."""
    add_shared(add, "--quiet", action="store_true")


def add_json(add: Add) -> None:
    """The option --json."""
    add_shared(add, "--json", type=Path, metavar="FILE")


def add_overwrite(add: Add, what: str) -> None:
    """The option --overwrite; `what` is there."""
    add_shared(add, "--overwrite", f": {what}", action="store_true")


def add_dtype(add: Add, choices: Sequence[str] | None = None, default: str | None = None) -> None:
    """The option --dtype, which is None where it is not given and has no default; all that a model computes in by
    default.
    """
    from tooncrafter_jax.sampling.model_loading import DTYPES  # needs JAX, for which `tooncrafter --help` need not wait

    choices = choices or DTYPES
    usual = default or "float32 on CPUs, else bfloat16"
    add_shared(
        add,
        "--dtype",
        f": {', '.join(choices)} (default: {usual})",
        choices=choices,
        default=default,
        metavar="TYPE",
    )


def add_architecture(add: Add) -> None:
    """The option --architecture, which `convert.architecture_of` reads."""
    from tooncrafter_jax.models.configuration import PRESETS

    more = (
        f": {', '.join(PRESETS)}, or a JSON file in the published code's keys (default: that of the directory that "
        "something is added to, else tooncrafter_512; files of DynamiCrafter's models tell theirs)"
    )
    add_shared(add, "--architecture", more, metavar="NAME|FILE")


def add_stored_dtype(add: Add, choices: Collection[str], default: str | None, usual: str = "%(default)s") -> None:
    """The option --stored-dtype; `usual` says what it is where there is no default."""
    more = f": {', '.join(choices)} (default: {usual})"
    add_shared(add, "--stored-dtype", more, choices=choices, default=default, metavar="TYPE")


def add_attention(add: Add) -> None:
    """The option --attention."""
    from tooncrafter_jax.nn.attention import BACKENDS

    add_shared(
        add,
        "--attention",
        f", where it can: {', '.join(BACKENDS)}; the result is the same up to rounding (default: %(default)s, by "
        "device and size)",
        default="auto",
        choices=BACKENDS,
        metavar="NAME",
    )


def add_memory(add: Add) -> None:
    """The option --memory."""
    from tooncrafter_jax.sampling.residence import MEMORY

    add_shared(
        add,
        "--memory",
        ": high keeps all of it there, low the networks alone that are at work, which takes the time of moving them "
        "(default: %(default)s)",
        default="high",
        choices=MEMORY,
        metavar="NAME",
    )


def add_weight_dtype(add: Add) -> None:
    """The option --weight-dtype, which is None where it is not given."""
    from tooncrafter_jax.weights.eight_bits import WEIGHT_DTYPES

    more = (
        f": {', '.join(WEIGHT_DTYPES)}, with which they take half of bfloat16's memory; they are computed with as "
        "--dtype says, and clips differ a little (default: as --dtype)"
    )
    add_shared(add, "--weight-dtype", more, choices=WEIGHT_DTYPES, default=None, metavar="TYPE")


def add_batch_size(add: Add, what: str, default: int) -> None:
    """The option --batch-size; `what` are worked on."""
    more = f": {what} (default: %(default)s)"
    add_shared(add, "--batch-size", more, type=int, default=default, metavar="N")


def add_split(add: Add, default: str) -> None:
    """The option --split."""
    add_shared(add, "--split", " (default: %(default)s)", default=default, metavar="NAME")


def add_size(add: Add, default: Mapping[str, object], what: str, *, frames: bool = False) -> None:
    """The options --height and --width of `what`, and with `frames` --frames before them."""
    if frames:
        more = " in frames (default: %(default)s)"
        add_shared(add, "--frames", more, type=int, default=default["frames"], metavar="N")
    for side in ("height", "width"):
        more = f" of {what} (default: %(default)s)"
        add_shared(add, f"--{side}", more, type=int, default=default[side], metavar="N")


def add_clip_weights(add: Add, purpose: str) -> None:
    """The options --clip-weights and --quick-gelu; `purpose` says what CLIP is used for."""
    more = f", for {purpose}: OpenCLIP's or OpenAI's, or a published ToonCrafter checkpoint; without it that is off"
    add_shared(add, "--clip-weights", more, type=Path, metavar="FILE")
    add_shared(add, "--quick-gelu", action="store_true")


def add_metric_weights(add: Add) -> None:
    """The option --metric-weights."""
    more = " (default: tooncrafter_jax/metric_weights below $XDG_CACHE_HOME or ~/.cache)"
    add_shared(add, "--metric-weights", more, type=Path, metavar="DIR")


def add_hosts(add: Add) -> None:
    """The options --coordinator, --num-processes and --process-id, which `distributed.initialize` takes."""
    more = "; found by itself on TPU, with Slurm, Open MPI and Kubernetes"
    add_shared(add, "--coordinator", more, metavar="HOST:PORT")
    add_shared(add, "--num-processes", "; 1 alone: no others", type=int, metavar="N")
    add_shared(add, "--process-id", type=int, metavar="N")


def add_compilation_cache(add: Add) -> None:
    """The option --compilation-cache, which `compilation_cache.enable_compilation_cache` takes."""
    more = (
        ": on several hosts a directory that all of them share, also gs://... (default: $JAX_COMPILATION_CACHE_DIR, "
        "else ~/.cache/tooncrafter_jax/xla)"
    )
    add_shared(add, "--compilation-cache", more, metavar="DIR")


def check_at_least_one(arguments: argparse.Namespace, *names: str) -> None:
    """Raises UserError for the first of these numbers that is below 1."""
    for name in names:
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(arguments, name)}")
