"""The command `tooncrafter train --config=configs/rectify_512.py --workdir=runs/rectify`; see `--help`."""

import sys

from tooncrafter_jax.cli.common import run


def main(argv: list[str]) -> int:
    """Loads the command only when it runs, so that Ctrl-C ends it well from the start."""
    from tooncrafter_jax.cli.train import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(run(main))
