"""What --lock-colours and --palette do to the colours of held-out clips.

  python scripts/measure_colours.py --set=DIR [--split=test] [--limit=64] [--model=small]

Each clip is drawn once from its first and last frame, and its colours are corrected in each way. Printed are the drift
of the mean colour from the way between the keys, the difference of pixels from the truth, both in CIELAB, and SSIM,
over the frames between. The true frames stand beside them: what they have of a drift is no fault, and what a correction
does to them is.
"""

from __future__ import annotations

import numpy as np
from held_out import end, held_out, parser_of

from tooncrafter_jax.evaluation.metrics.colour_drift import ColourDrift
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.evaluation.metrics.ssim import Ssim
from tooncrafter_jax.io.cielab import lab_of_srgb
from tooncrafter_jax.io.colour_lock import locked_colours
from tooncrafter_jax.io.palettes import snapped_to_palette
from tooncrafter_jax.sampling.request import Pair
from tooncrafter_jax.typing import Uint8Video


def ways(frames: Uint8Video, first: np.ndarray, last: np.ndarray) -> dict[str, np.ndarray]:
    """A clip as it is, and with its colours corrected."""
    locked = locked_colours(frames, first, last)
    return {
        "as it is": frames,
        "colours locked": locked,
        "palette": snapped_to_palette(frames, [first, last]),
        "colours locked, palette": snapped_to_palette(locked, [first, last]),
    }


def measured(frames: np.ndarray, truth: np.ndarray) -> list[float]:
    """Drift, difference and SSIM of the frames between."""
    batch = ClipBatch(frames[None], truth[None], ("",))
    drift, ssim = (metric.of_frames(batch)[0, 1:-1].mean() for metric in (ColourDrift(), Ssim()))
    away = np.sqrt(((lab_of_srgb(frames[1:-1]) - lab_of_srgb(truth[1:-1])) ** 2).sum(-1)).mean()
    return [float(drift), float(away), float(ssim)]


def main() -> None:
    """Prints the table."""
    parser = parser_of(__doc__, limit=64, steps=25)
    parser.add_argument(
        "--batch-size", type=int, default=1, help="clips that are drawn together (default: %(default)s)"
    )
    arguments = parser.parse_args()
    toon, options, _, clips = held_out(arguments)
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for start in range(0, len(clips), arguments.batch_size):
        batch = [clips[index] for index in range(start, min(start + arguments.batch_size, len(clips)))]
        pairs = [Pair(one.video[0], one.video[-1], one.prompt, seed=one.seed, fps=one.fps) for one in batch]
        for one, drawn in zip(batch, toon.interpolate_pairs(pairs, options), strict=True):
            for whose, frames in (("true", one.video), ("drawn", drawn)):
                for way, corrected in ways(frames, one.video[0], one.video[-1]).items():
                    rows.setdefault((whose, way), []).append(measured(corrected, one.video))
        print(f"{min(start + arguments.batch_size, len(clips))} of {len(clips)} clips", flush=True)
    print("\n| frames | colours | drift (ΔE) | from the truth (ΔE) | SSIM |\n|---|---|---|---|---|")
    for (whose, way), of_way in rows.items():
        drift, away, ssim = np.mean(of_way, axis=0)
        print(f"| {whose} | {way} | {drift:.2f} | {away:.2f} | {ssim:.4f} |")


if __name__ == "__main__":
    end(main)
