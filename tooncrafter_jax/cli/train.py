"""`tooncrafter train`: any stage from a config file, resumed from its working directory."""

from __future__ import annotations

from tooncrafter_jax.cli.common import EXIT_OK, Parser
from tooncrafter_jax.cli.config_options import add_config, parse_with_config
from tooncrafter_jax.cli.vocabulary import add_compilation_cache, add_hosts
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.runtime.distributed import initialize
from tooncrafter_jax.training.interruption import EXIT_PREEMPTED

DESCRIPTION = """\
Trains a stage, and goes on where an earlier run in the same working directory stopped.

  tooncrafter train --config=configs/rectify_512.py --workdir=runs/rectify
  tooncrafter train --config=configs/rectify_512_variants.py:iii --workdir=runs/iii --config.steps=2000
  tooncrafter train --config=configs/rectify_512.py --workdir=runs/rectify --export

Any value of the config can be changed by --config.KEY=VALUE. Exit codes: 0 finished, 2 a mistake that the message
names, 75 told to stop (SIGTERM or a preemption notice) after saving: start it again."""


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser("tooncrafter train", description=DESCRIPTION)
    add_config(parser)
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="checkpoints, logs and the exported model; may be in a bucket (gs://, s3://)",
    )
    parser.add_argument(
        "--profile", action="store_true", help="trace a few steps into DIR/profile, for xprof or TensorBoard"
    )
    parser.add_argument(
        "--export", action="store_true", help="do not train, export the newest checkpoint to DIR/export as it is"
    )
    where = parser.add_argument_group("where it runs").add_argument
    add_hosts(where)
    add_compilation_cache(where)
    return parser


def main(argv: list[str]) -> int:
    """Runs the command.

    Raises:
      UserError: for a user's mistake.
    """
    args, config = parse_with_config(build_parser(), argv)
    initialize(args.coordinator, args.num_processes, args.process_id)
    enable_compilation_cache(args.compilation_cache)

    from tooncrafter_jax.training.trainer import Trainer

    trainer = Trainer(config, args.workdir, profile=args.profile)
    if args.export:
        print(f"{trainer.workdir / 'export'}: the model after step {trainer.export()}")
        return EXIT_OK
    outcome = trainer.run()
    return EXIT_OK if outcome.finished else EXIT_PREEMPTED
