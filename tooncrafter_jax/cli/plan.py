"""The command `plan`: what a training or sampling step takes on a machine that need not be there."""

from __future__ import annotations

import argparse
import json

from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK, Parser, check_json
from tooncrafter_jax.cli.config_options import add_config, parse_with_config
from tooncrafter_jax.cli.declared_options import add_declared, flag_of, given_options
from tooncrafter_jax.cli.vocabulary import add_json, add_weight_dtype
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.options import declared
from tooncrafter_jax.planning.topologies import parse_topology
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.sampling.sampling_options import SamplingOptions
from tooncrafter_jax.typing import JsonObject

DESCRIPTION = """\
Compiles the training step of a config for a TPU slice without having one, and says whether it fits, what memory,
operations and exchanges it takes, and how fast it could be at best; then validation and samples, and says what the
whole run holds at its peak.

  tooncrafter plan --config=configs/rectify_512.py --topology=v5e:4x8 --config.mesh=data:4,fsdp:8
  tooncrafter plan --config=configs/tiny.py:rectify --topology=cpu:2 --config.mesh=fsdp:2
  tooncrafter plan --config=configs/rectify_512.py --topology=v5e:8x8 --config.mesh=data:2,fsdp:8,frames:4 --hosts
  tooncrafter plan --config=configs/rectify_512.py --topology=v5e:1x1 --sampling --solver=unipc --steps=20 --reuse=3
  tooncrafter plan --config=configs/rectify_512.py --topology=v5e:1x1 --decoding --decode-tile-size=256

TPU slices (v5e:4x8, v5p:4x4x4, v6e:8x8, two of them 2xv5e:8x8) need the extra `tpu`. With cpu:N the step is compiled
for N simulated CPU devices. A step of the full-size model takes minutes to compile. Exit codes: 0 it fits, 1 it does
not, 2 a mistake that the message names."""

OF_A_PART = {
    "sampling": (
        "solver",
        "spacing",
        "steps",
        "timesteps",
        "guidance_scale",
        "image_guidance_scale",
        "guidance_interval",
        "reuse",
        "sequential_guidance",
    ),
    "decoding": ("decode_frames_per_chunk", "decode_tile_size"),
}
"""Options of sampling that change what the denoising loop takes, and what decoding does."""


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser("tooncrafter plan", description=DESCRIPTION)
    add_config(parser)
    parser.add_argument(
        "--topology", required=True, metavar="KIND:SHAPE", help="v5e:4x8, v5p:4x4x4, v6e:8x8, 2xv5e:8x8, cpu:8, ..."
    )
    parser.add_argument(
        "--sampling", nargs="?", const=1, type=int, metavar="PAIRS", help="the sampling loop of so many pairs instead"
    )
    parser.add_argument(
        "--decoding", nargs="?", const=1, type=int, metavar="PAIRS", help="the decoding of so many pairs instead"
    )
    for part, names in OF_A_PART.items():
        add_declared(parser.add_argument_group(f"with --{part}").add_argument, SamplingOptions, names)
    add_weight_dtype(parser.add_argument)
    parser.add_argument(
        "--hosts", action="store_true", help="only say which rows of a batch each host loads; nothing is compiled"
    )
    parser.add_argument("--step-only", action="store_true", help="leave out validation and samples, which compile too")
    add_json(parser.add_argument)
    return parser


def asked_part(args: argparse.Namespace, options: JsonObject) -> str | None:
    """Which part of `OF_A_PART` is planned; None for training.

    Args:
      args: all arguments.
      options: those of sampling that are given.

    Raises:
      UserError: two parts are asked for, or something that does not go with what is planned.
    """
    asked = [part for part in OF_A_PART if getattr(args, part) is not None]
    if len(asked) > 1:
        raise UserError("--sampling and --decoding do not go together: give one after the other")
    part = asked[0] if asked else None
    if args.hosts and part is not None:
        raise UserError(f"--hosts and --{part} do not go together: {part} loads no batches, so leave one of them out")
    if args.step_only and (args.hosts or part is not None):
        raise UserError(
            f"--step-only leaves out validation and samples, which --{'hosts' if args.hosts else part} does not "
            "compile: leave it out"
        )
    if args.weight_dtype is not None and part != "sampling":
        raise UserError(
            "--weight-dtype is for --sampling: training and decoding hold all weights as they are, so leave it out"
        )
    for name in options:
        wanted = next(part for part, names in OF_A_PART.items() if name in names)
        if wanted != part:
            flag = flag_of(declared(SamplingOptions)[name])
            raise UserError(f"{flag} is for --{wanted}: give that, too, or leave it out")
    return part


def main(argv: list[str]) -> int:
    """Runs the command.

    Raises:
      UserError: for a user's mistake.
    """
    args, config = parse_with_config(build_parser(), argv)
    topology = parse_topology(args.topology)
    options = given_options(args, SamplingOptions)
    part = asked_part(args, options)
    check_json(args.json, ("topology", "hosts") if args.hosts else ("topology", "simulated", "minimum"))
    if topology.chip is None:
        enable_compilation_cache()

    from tooncrafter_jax.planning.decoding_plan import plan_decoding
    from tooncrafter_jax.planning.plan import host_rows, plan_training
    from tooncrafter_jax.planning.plan_report import hosts_text, plan_text, plan_values, run_text, run_values
    from tooncrafter_jax.planning.plan_run import plan_run
    from tooncrafter_jax.planning.sampling_plan import plan_sampling

    if args.hosts:
        mesh, rows = host_rows(config, topology)
        print(hosts_text(topology, mesh, config.data.batch, rows))
        if args.json:
            values = {"topology": topology.name, "mesh": dict(mesh.shape), "batch": config.data.batch, "hosts": rows}
            write_atomically(args.json, json.dumps(values, indent=2).encode())
        return EXIT_OK
    if part is None and not args.step_only:
        run = plan_run(config, topology)
        text, values, fits = run_text(run), run_values(run), run.fits
    else:
        if part == "sampling":
            one = plan_sampling(config, topology, args.sampling, args.weight_dtype, options)
        elif part == "decoding":
            one = plan_decoding(config, topology, args.decoding, options)
        else:
            one = plan_training(config, topology)
        text, values, fits = plan_text(one), plan_values(one), one.fits
    print(text)
    if args.json:
        write_atomically(args.json, json.dumps(values, indent=2).encode())
    return EXIT_FAILED if fits is False else EXIT_OK
