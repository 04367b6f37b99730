"""How well the opacity of cels is recovered: the table of docs/cels.md, on animated emoji, whose true opacity is known.

  python scripts/measure_mattes.py --out=DIR [--emoji=24] [--model=small]

Each emoji gives a clip of 16 frames. Its first and last are the keys; the others are put over the background that is
chosen for the keys, and their opacity is recovered from that one picture, and from one over a second background too.
Printed is the mean absolute error of opacity (0 to 1) over all pixels and over those that are half transparent, and of
colours (0 to 1) over black and over white. With --model the frames between are drawn, too, and recovered in the same
way: beside their distance from the truth stands that of the true frames. DIR gets sheets of clips over two backgrounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tooncrafter_jax.curation.synthetic.animated_pictures import longest_whole_run, read_animation
from tooncrafter_jax.curation.synthetic.emoji_packages import cache_directory, fetch_packages, list_assets
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import BLACK, WHITE, write_contact_sheet
from tooncrafter_jax.io.backgrounds import colours_of, farthest_background, hex_of
from tooncrafter_jax.io.mattes import drawn_colours, matte, matte_of_two
from tooncrafter_jax.io.transparency import over

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
        try:
            made, chosen, distance = recovered(cels)
            if toon is not None:
                for kind, twice in (("drawn, one background", False), ("drawn, two backgrounds", True)):
                    drawn = toon.interpolate(
                        cels[0],
                        cels[-1],
                        alpha=True,
                        two_backgrounds=twice,
                        steps=arguments.steps,
                        height=arguments.size,
                        width=arguments.size,
                    )
                    made[kind] = drawn[1:-1]
        except UserError as error:
            print(f"{name}: {error}")
            continue
        for kind, found in made.items():
            rows.setdefault(kind, []).append(errors(found, cels[1:-1]))
        told = ", ".join(f"{kind} {rows[kind][-1][0]:.4f}" for kind in made)
        print(f"{name}: over {chosen}, {distance:.0f} from the drawing: {told}", flush=True)
        if number < arguments.sheets:
            for kind, found in made.items():
                path = arguments.out / f"{name}_{kind.replace(', ', '_').replace(' ', '_')}.png"
                write_contact_sheet(path, two_backgrounds(found), columns=7)
    print("\n| frames | opacity | where half transparent | colours over black and white | worst clip's opacity |")
    print("|---|---|---|---|---|")
    for kind, of_kind in rows.items():
        means, worst = np.mean(of_kind, axis=0), max(row[0] for row in of_kind)
        print(f"| {kind} | " + " | ".join(f"{value:.4f}" for value in means) + f" | {worst:.4f} |")


def recovered(cels: np.ndarray) -> tuple[dict[str, np.ndarray], str, float]:
    """The true frames between, recovered from one background and from two; the background, and how far it is."""
    keys: Sequence[np.ndarray] = [cels[0], cels[-1]]
    colours = np.concatenate([colours_of(key) for key in keys])
    background, distance = farthest_background(colours)
    second, _ = farthest_background(colours, apart_from=background)
    known = drawn_colours(keys)
    pairs = [(over(cel, background), over(cel, second)) for cel in cels[1:-1]]
    found = {
        "true, one background": np.stack([matte(one, background, known) for one, _ in pairs]),
        "true, two backgrounds": np.stack([matte_of_two(*pair, background, second, known) for pair in pairs]),
    }
    return found, hex_of(background), distance


if __name__ == "__main__":
    main()
