"""Two drawings in, one video out: `python sample.py --first=a.png --last=b.png --out=ab.mp4`. See `--help`."""

import sys

from tooncrafter_jax.cli.common import run
from tooncrafter_jax.cli.sample import main

if __name__ == "__main__":
    sys.exit(run(main))
