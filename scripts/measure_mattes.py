"""How well the opacity of cels is recovered: the errors in docs/cels.md, on animated emoji of known opacity.

  python scripts/measure_mattes.py --out=DIR [--emoji=24] [--model=small]

Each emoji gives a clip of 16 frames. Its first and last are the keys; the others are put over the background that is
chosen for the keys, and their opacity is recovered from that one picture, and from one over a second background too.
Printed is the mean absolute error of opacity (0 to 1) over all pixels and over those that are half transparent, and of
colours (0 to 1) over black and over white. With --model the frames between are drawn, too, and recovered in the same
way: beside their distance from the truth stands that of the true frames. DIR gets sheets of clips over two backgrounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tooncrafter_jax.curation.synthetic.animated_pictures import longest_whole_run, read_animation
from tooncrafter_jax.curation.synthetic.emoji_packages import cache_directory, fetch_packages, list_assets
from tooncrafter_jax.io import BLACK, WHITE, write_contact_sheet
from tooncrafter_jax.io.backgrounds import colours_of, farthest_background, hex_of
from tooncrafter_jax.io.cels import CelKeys
from tooncrafter_jax.io.transparency import over

if TYPE_CHECKING:
    from tooncrafter_jax import ToonCrafter

FRAMES = 16


def true_cels(count: int, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names of emoji, spread over all, and clips (16, size, size, 4) of them."""
    assets = [asset for asset in list_assets(fetch_packages(cache_directory())) if asset.animated]
    for asset in assets[:: max(1, len(assets) // count)][:count]:
        frames = longest_whole_run(read_animation(asset.path)).frames
        if len(frames) < FRAMES:
            continue
        chosen = frames[np.linspace(0, min(len(frames), 2 * FRAMES) - 1, FRAMES).round().astype(int)]
        pictures = [Image.fromarray(frame, "RGBa").convert("RGBA") for frame in chosen]
        yield asset.name, np.stack([np.asarray(picture.resize((size, size))) for picture in pictures])


def errors(found: np.ndarray, true: np.ndarray) -> list[float]:
    """Of opacity, everywhere and where it is between none and all, and of colours over black and white."""
    difference = np.abs(found[..., 3].astype(int) - true[..., 3]) / 255
    half = (true[..., 3] > 0) & (true[..., 3] < 255)
    shown = [
        np.abs(over(one, colour).astype(int) - over(other, colour)).mean() / 255
        for colour in (BLACK, WHITE)
        for one, other in zip(found, true, strict=True)
    ]
    return [float(difference.mean()), float(difference[half].mean()) if half.any() else 0.0, float(np.mean(shown))]


def two_backgrounds(cels: np.ndarray) -> np.ndarray:
    """Every other frame over a light and over a dark colour."""
    return np.concatenate(
        [np.stack([over(cel, colour) for cel in cels[::2]]) for colour in ((245, 235, 200), (40, 60, 110))]
    )


def main() -> None:
    """Prints the table and writes the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a directory for the sheets")
    parser.add_argument("--emoji", type=int, default=24, help="how many (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="pixels on a side (default: %(default)s)")
    parser.add_argument("--sheets", type=int, default=4, help="of how many (default: %(default)s)")
    parser.add_argument("--model", default="", help="draw the frames between with this model, too")
    parser.add_argument("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    arguments = parser.parse_args()
    toon = None
    if arguments.model:
        from tooncrafter_jax import ToonCrafter

        toon = ToonCrafter.load(arguments.model)
    rows: dict[str, list[list[float]]] = {}
    for number, (name, cels) in enumerate(true_cels(arguments.emoji, arguments.size)):
        keys = chosen_keys(cels)
        made = {kind: (found, cels[1:-1]) for kind, found in of_truth(cels, keys).items()}
        if toon is not None:
            made |= of_drawn(toon, cels, keys, arguments.steps)
        for kind, both in made.items():
            rows.setdefault(kind, []).append(errors(*both))
        told = ", ".join(f"{kind} {rows[kind][-1][0]:.4f}" for kind in made)
        print(f"{name}: over {hex_of(keys.background)}: {told}", flush=True)
        if number < arguments.sheets:
            for kind, (found, _) in made.items():
                path = arguments.out / f"{name}_{kind.replace(', ', '_').replace(' ', '_')}.png"
                write_contact_sheet(path, two_backgrounds(found), columns=(len(found) + 1) // 2)
    print("\n| frames | opacity | where half transparent | colours over black and white | worst clip's opacity |")
    print("|---|---|---|---|---|")
    for kind, of_kind in rows.items():
        means, worst = np.mean(of_kind, axis=0), max(row[0] for row in of_kind)
        print(f"| {kind} | " + " | ".join(f"{value:.4f}" for value in means) + f" | {worst:.4f} |")


def chosen_keys(cels: np.ndarray) -> CelKeys:
    """The first and the last of a clip, over two backgrounds that are far from their colours."""
    colours = np.concatenate([colours_of(key) for key in (cels[0], cels[-1])])
    background, _ = farthest_background(colours)
    return CelKeys((cels[0], cels[-1]), background, farthest_background(colours, apart_from=background)[0])


def of_truth(cels: np.ndarray, keys: CelKeys) -> dict[str, np.ndarray]:
    """The true frames between, recovered from one background and from two."""
    backgrounds = [keys.background, keys.second or keys.background]
    frames, again = (np.stack([over(cel, colour) for cel in cels]) for colour in backgrounds)
    return {
        "true, one background": keys.recovered(frames)[1:-1],
        "true, two backgrounds": keys.recovered(frames, again)[1:-1],
    }


def of_drawn(
    toon: ToonCrafter, cels: np.ndarray, keys: CelKeys, steps: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Frames that a model draws, recovered likewise, and the true ones; its keys alone show no motion but the true."""
    height, width = cels.shape[1:3]
    frames, again = (
        toon.interpolate(cels[0], cels[-1], background=hex_of(colour), steps=steps, height=height, width=width)
        for colour in (keys.background, keys.second or keys.background)
    )
    alone, both = keys.recovered(frames, places={}), keys.recovered(frames, again, places={})
    ends = [0, -1]
    return {
        "drawn, one background": (alone[1:-1], cels[1:-1]),
        "drawn, two backgrounds": (both[1:-1], cels[1:-1]),
        "keys as they are decoded, one background": (alone[ends], cels[ends]),
        "keys as they are decoded, two backgrounds": (both[ends], cels[ends]),
    }


if __name__ == "__main__":
    main()
