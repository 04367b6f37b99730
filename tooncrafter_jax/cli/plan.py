"""The command `plan`: what a training or sampling step takes on a machine that need not be there."""

from __future__ import annotations

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

DESCRIPTION = """\
Compiles the training step of a config for a TPU slice without having one, and says whether it fits, what memory,
operations and exchanges it takes, and how fast it could be at best; then validation and samples, and says what the
whole run holds at its peak.

  tooncrafter plan --config=configs/rectify_512.py --topology=v5e:4x8 --config.mesh=data:4,fsdp:8
  tooncrafter plan --config=configs/tiny.py:rectify --topology=cpu:2 --config.mesh=fsdp:2
  tooncrafter plan --config=configs/rectify_512.py --topology=v5e:8x8 --config.mesh=data:2,fsdp:8,frames:4 --hosts
  tooncrafter plan --config=configs/rectify_512.py --topology=v5e:1x1 --sampling --solver=unipc --steps=20 --reuse=3

TPU slices (v5e:4x8, v5p:4x4x4, v6e:8x8, two of them 2xv5e:8x8) need the extra `tpu`. With cpu:N the step is compiled
for N simulated CPU devices. A step of the full-size model takes minutes to compile. Exit codes: 0 it fits, 1 it does
not, 2 a mistake that the message names."""

OF_THE_LOOP = (
    "solver",
    "spacing",
    "steps",
    "timesteps",
    "guidance_scale",
    "image_guidance_scale",
    "guidance_interval",
    "reuse",
    "sequential_guidance",
)
"""Options of sampling that change what the denoising loop takes."""


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
    add_declared(parser.add_argument_group("with --sampling").add_argument, SamplingOptions, OF_THE_LOOP)
    add_weight_dtype(parser.add_argument)
    parser.add_argument(
        "--hosts", action="store_true", help="only say which rows of a batch each host loads; nothing is compiled"
    )
    parser.add_argument("--step-only", action="store_true", help="leave out validation and samples, which compile too")
    add_json(parser.add_argument)
    return parser


def main(argv: list[str]) -> int:
    """Runs the command.

    Raises:
      UserError: for a user's mistake.
    """
    args, config = parse_with_config(build_parser(), argv)
    topology = parse_topology(args.topology)
    if args.hosts and args.sampling is not None:
        raise UserError(
            "--hosts and --sampling do not go together: sampling loads no batches, so leave one of them out"
        )
    if args.step_only and (args.hosts or args.sampling is not None):
        raise UserError(
            f"--step-only leaves out validation and samples, which --{'hosts' if args.hosts else 'sampling'} does not "
            "compile: leave it out"
        )
    if args.weight_dtype is not None and args.sampling is None:
        raise UserError("--weight-dtype is for --sampling: training holds all weights as they are, so leave it out")
    options = given_options(args, SamplingOptions)
    if options and args.sampling is None:
        flag = flag_of(declared(SamplingOptions)[next(iter(options))])
        raise UserError(f"{flag} is for --sampling: give that, too, or leave it out")
    check_json(args.json, ("topology", "hosts") if args.hosts else ("topology", "simulated", "minimum"))
    if topology.chip is None:
        enable_compilation_cache()

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
    if args.sampling is None and not args.step_only:
        run = plan_run(config, topology)
        text, values, fits = run_text(run), run_values(run), run.fits
    else:
        one = (
            plan_training(config, topology)
            if args.sampling is None
            else plan_sampling(config, topology, args.sampling, args.weight_dtype, options)
        )
        text, values, fits = plan_text(one), plan_values(one), one.fits
    print(text)
    if args.json:
        write_atomically(args.json, json.dumps(values, indent=2).encode())
    return EXIT_FAILED if fits is False else EXIT_OK
