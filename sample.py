"""Two drawings in, one video out: `python sample.py --first=a.png --last=b.png --out=ab.mp4`. See `--help`.

Without arguments it draws the examples with the model that comes with the package.
"""

import shlex
import sys
from pathlib import Path

from tooncrafter_jax.cli.common import run

EXAMPLES = Path(__file__).resolve().parent / "examples" / "demo.jsonl"
DEMO = (f"--manifest={EXAMPLES}", "--out=demo", "--format=mp4,gif", "--contact-sheet", "--cross-fade")
"""What is drawn without arguments."""


def main(argv: list[str]) -> int:
    """Loads the command only when it runs, so that Ctrl-C ends it well from the start."""
    from tooncrafter_jax.cli.sample import main

    if not argv:
        print(f"no pictures are given, so here are the examples: python sample.py {shlex.join(DEMO)}")
        argv = list(DEMO)
    return main(argv)


if __name__ == "__main__":
    sys.exit(run(main))
