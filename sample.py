"""The command `tooncrafter sample`: `python sample.py --first=a.png --last=b.png --out=ab.mp4`. See `--help`.

Without arguments it draws the examples with the model that comes with the package.
"""

import sys

from tooncrafter_jax.cli.common import run


def main(argv: list[str]) -> int:
    """Loads the command only when it runs, so that Ctrl-C ends it well from the start."""
    from tooncrafter_jax.cli.sample import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(run(main))
