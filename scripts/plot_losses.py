"""Draws a quantity of training runs over their steps, one panel a run, from their `metrics.jsonl`.

python scripts/plot_losses.py runs/a runs/b --out=losses.png
python scripts/plot_losses.py runs/a --quantity=psnr --out=psnr.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def read(run: Path, quantity: str) -> dict[int, float]:
    """Step -> value; of a step that was taken twice, after a kill, the later one."""
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().split("\n") if line)
    return {line["step"]: line[quantity] for line in lines if line.get(quantity) is not None}


def smoothed(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Means over windows of this share of the run, narrower at its ends."""
    half = max(1, round(len(values) * share / 2))
    return np.asarray([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def main() -> None:
    """Reads the arguments and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="WORKDIR")
    parser.add_argument("--quantity", default="loss", metavar="NAME", help="as metrics.jsonl calls it (default: loss)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    arguments = parser.parse_args()
    columns = min(3, len(arguments.runs))
    rows = -(-len(arguments.runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(arguments.runs) :]:
        axis.axis("off")
    for axis, run in zip(axes.flat, arguments.runs, strict=False):
        found, held_out = read(run, arguments.quantity), read(run, f"validation/{arguments.quantity}")
        if not found and not held_out:
            parser.error(f"{run} logs no '{arguments.quantity}'")
        if found:
            steps, values = np.asarray(list(found)), np.asarray(list(found.values()))
            axis.plot(steps, values, color="#c9d6e8", linewidth=0.8, label="each step")
            axis.plot(steps, smoothed(values), color="#1f4e8c", label="smoothed")
        axis.plot(list(held_out), list(held_out.values()), "o-", color="#c2410c", markersize=3, label="validation")
        without = read(run, f"validation/{arguments.quantity}_without_sketches")
        if without:
            axis.plot(
                list(without),
                list(without.values()),
                "s--",
                color="#7a7a7a",
                markersize=3,
                label="validation, no sketch",
            )
        axis.set(title=run.name, xlabel="step", ylabel=arguments.quantity)
        axis.legend(fontsize=7)
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
