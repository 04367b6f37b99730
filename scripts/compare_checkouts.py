"""Does a change of structure leave the results as they were? Runs two checkouts and compares what they draw and what
they learn.

    python scripts/compare_checkouts.py ../before . --clips=data/bodies

- `sample.py` draws the demo: frames compared pixel by pixel;
- `verify` compares with the reference numbers: the two tables compared line by line, their deviations as numbers;
- `train.py` takes 20 steps of the stages of `configs/tiny.py` but `distill`, or of those that --stages names: losses
  compared step by step.

The set of clips is made by `tooncrafter curate bodies --out=data/bodies --count=16`. Exit code 1 if anything differs
by more than the tolerances below.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PARTS = ("demo", "verify", "train")
STAGES = ("autoencoder", "base", "rectify", "lora", "decoder", "sketch", "joint")
BEFORE_JOINT = (
    "--config=configs/tiny.py:decoder",
    "--config.denoised_latents=True",
    "--config.groups=('decoder', 'spatial', 'sketch')",
)
"""How versions without the stage `joint` train it."""
LOSS_TOLERANCE = 1e-6
"""Relative; the order of operations may differ, the mathematics not."""
LEVELS = 1
"""Of 255, for the same reason."""
DEVIATION_TOLERANCE = 1e-5
"""Between the deviations of two tables, for the same reason: a thirtieth of what `verify` allows."""


def run(checkout: Path, *arguments: str) -> str:
    """Runs python in a checkout; its output.

    Raises:
      SystemExit: it failed.
    """
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(arguments)} failed\n{done.stderr[-3000:]}")
    return done.stdout


def demo(checkout: Path, out: Path) -> dict[str, np.ndarray]:
    """Name -> frame of the demo's clips."""
    run(checkout, "sample.py", "--manifest=examples/demo.jsonl", f"--out={out}", "--format=png")
    return {str(file.relative_to(out)): np.asarray(Image.open(file)) for file in sorted(out.rglob("frame_*.png"))}


def words_and_numbers(lines: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """A table's words, and its numbers like 1.9e-05, in their order."""
    cells = [cell for line in lines for cell in line.split()]
    numbers = [cell for cell in cells if re.fullmatch(r"\d\.\d+e[+-]\d+", cell)]
    return [cell for cell in cells if cell not in numbers], np.asarray(numbers, float)


def config_of(checkout: Path, stage: str) -> tuple[str, ...]:
    """The arguments by which a checkout trains a stage of the tiny model."""
    if stage == "joint" and not (checkout / "tooncrafter_jax/training/stages/joint.py").exists():
        return BEFORE_JOINT
    return (f"--config=configs/tiny.py:{stage}",)


def losses(checkout: Path, stage: str, clips: Path, workdir: Path, options: Sequence[str]) -> np.ndarray:
    """The loss of each of 20 steps; the options are those of the config of both checkouts."""
    run(
        checkout,
        "train.py",
        *config_of(checkout, stage),
        f"--workdir={workdir}",
        f"--config.data.directory={clips}",
        "--config.save_every=0",
        *options,
    )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().split("\n") if line]
    return np.asarray([line["loss"] for line in lines if "loss" in line])


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--clips", type=Path, required=True, help="a set that both read")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--stages", nargs="*", default=STAGES)
    arguments, options = parser.parse_known_args()  # others are of the config, e.g. --config.data.batch=1
    checkouts = [path.absolute() for path in (arguments.before, arguments.after)]
    differ = False

    def report(what: str, text: str, same: bool) -> None:
        nonlocal differ
        differ |= not same
        print(f"{what:20} {text}{'' if same else '   DIFFERS'}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        if "demo" in arguments.parts:
            drawn = [demo(checkout, Path(folder) / f"demo{i}") for i, checkout in enumerate(checkouts)]
            if not drawn[0] or drawn[0].keys() != drawn[1].keys():
                report("demo", f"{len(drawn[0])} and {len(drawn[1])} files, not of the same names", False)
            else:
                off = {n: int(np.abs(drawn[0][n].astype(int) - drawn[1][n]).max()) for n in drawn[0]}
                changed = sum(value > 0 for value in off.values())
                text = f"{len(off)} frames, {changed} not byte by byte, largest difference {max(off.values())} levels"
                report("demo", text, max(off.values()) <= LEVELS)
        if "verify" in arguments.parts:
            tables = [run(c, "-m", "tooncrafter_jax", "verify", "tests/golden/tiny").split("\n") for c in checkouts]
            different = list(difflib.unified_diff(tables[0], tables[1], "before", "after", lineterm="", n=0))[2:]
            changed = sum(line.startswith("+") for line in different)
            words, numbers = zip(*map(words_and_numbers, tables), strict=True)
            same = words[0] == words[1] and len(numbers[0]) == len(numbers[1])
            off = float(np.max(np.abs(numbers[0] - numbers[1]), initial=0.0)) if same else np.inf
            text = f"{len(tables[0])} lines, {changed} not letter by letter, largest difference {off:.1e}"
            report("verify", text, off <= DEVIATION_TOLERANCE)
            print("\n".join(different), flush=True)
        for stage in arguments.stages if "train" in arguments.parts else ():
            clips = arguments.clips.absolute()
            a, b = (losses(c, stage, clips, Path(folder) / f"{stage}{i}", options) for i, c in enumerate(checkouts))
            worst = float(np.max(np.abs(a - b) / np.abs(a))) if a.shape == b.shape else np.inf
            report(f"train {stage}", f"{len(a)} steps, relative difference {worst:.1e}", worst <= LOSS_TOLERANCE)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
