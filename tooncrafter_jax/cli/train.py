"""The command `train.py`: any stage from a config file, resumed from its working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from tooncrafter_jax.cli.common import EXIT_OK, Parser
from tooncrafter_jax.compilation_cache import enable_compilation_cache
from tooncrafter_jax.distributed import initialize
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.training.configuration import TrainConfig, train_config
from tooncrafter_jax.training.interruption import EXIT_PREEMPTED

DESCRIPTION = """\
Trains a stage, and goes on where an earlier run in the same working directory stopped.

  python train.py --config=configs/rectify_512.py --workdir=runs/rectify
  python train.py --config=configs/rectify_512_variants.py:iii --workdir=runs/iii --config.steps=2000

Any value of the config can be changed by --config.KEY=VALUE. Exit codes: 0 finished, 2 a mistake that the message names,
75 told to stop (SIGTERM or a preemption notice) after saving: start it again."""


def main(argv: list[str]) -> int:
    """Runs the command.

    Raises:
      UserError: for a user's mistake.
    """
    overrides = [arg for arg in argv if arg.startswith("--config.")]
    parser = Parser("train.py", description=DESCRIPTION)
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="config file, see configs/")
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="checkpoints, logs and the exported model"
    )
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of several processes; found by itself on TPU and Slurm"
    )
    parser.add_argument("--num-processes", type=int, metavar="N", help="with --coordinator: how many")
    parser.add_argument("--process-id", type=int, metavar="N", help="with --coordinator: which one this is")
    parser.add_argument(
        "--profile", action="store_true", help="trace a few steps into DIR/profile, for xprof or TensorBoard"
    )
    args = parser.parse_args([arg for arg in argv if arg not in overrides])
    config = read_config(args.config, overrides)
    initialize(args.coordinator, args.num_processes, args.process_id)
    enable_compilation_cache()

    from tooncrafter_jax.training.trainer import Trainer

    outcome = Trainer(config, args.workdir, profile=args.profile).run()
    return EXIT_OK if outcome.finished else EXIT_PREEMPTED


def read_config(file: str, overrides: list[str]) -> TrainConfig:
    """The config of a file such as `configs/x.py` or `configs/x.py:variant`, with `--config.KEY=VALUE` changes.

    Raises:
      UserError: the file is missing or broken, or a key or value is wrong.
    """
    path = Path(file.partition(":")[0])
    if not path.is_file():
        raise UserError(f"there is no config file '{path}'")
    values = flags.FlagValues()
    line = ["train.py", f"--config={file}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=line)
    try:
        values(line)
        config: Any = values["config"].value
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, SyntaxError, ImportError) as error:
        raise UserError(
            f"the config '{file}' with {overrides} cannot be used: {' '.join(str(error).split())}"
        ) from error
    return train_config(config.to_dict())
