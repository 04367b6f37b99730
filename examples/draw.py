"""Draws the example pair, or films: a ball with a face that jumps over a fence. Run from the repository's root."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from random import Random

import av
from PIL import Image, ImageDraw

WIDTH, HEIGHT, SCALE = 512, 320, 4
FRAMES = 96
"""Of a film."""
INK, SKY, GRASS, WOOD, BALL = "#1d1b22", "#bfe3f5", "#8fc66b", "#c9935a", "#f2b134"


def scene(x: float, y: float, squash: float, *, lines_only: bool = False) -> Image.Image:
    """The scene with the ball at (x, y) in pixels; drawn large and reduced, so that lines are smooth."""
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white" if lines_only else SKY)
    draw = ImageDraw.Draw(image)

    def s(*values: float) -> list[float]:
        return [v * SCALE for v in values]

    def fill(colour: str) -> str:
        return "white" if lines_only else colour

    draw.rectangle(s(0, 240, WIDTH, HEIGHT), fill=fill(GRASS), outline=INK, width=3 * SCALE)
    draw.ellipse(s(400, 30, 460, 90), fill=fill("#fff3b0"), outline=INK, width=3 * SCALE)
    for left in (232, 252, 272):
        draw.polygon(
            s(left, 180, left + 8, 168, left + 16, 180, left + 16, 262, left, 262), fill=fill(WOOD), outline=INK
        )
        draw.line(
            s(left, 180, left + 8, 168, left + 16, 180, left + 16, 262, left, 262, left, 180), fill=INK, width=3 * SCALE
        )
    width, height = 36 * (1 + squash), 36 * (1 - squash)
    draw.ellipse(s(x - width, y - height, x + width, y + height), fill=fill(BALL), outline=INK, width=4 * SCALE)
    for eye in (-12, 12):
        draw.ellipse(s(x + eye - 5, y - 14, x + eye + 5, y), fill="white", outline=INK, width=2 * SCALE)
        draw.ellipse(s(x + eye - 1, y - 9, x + eye + 4, y - 3), fill=INK)
    draw.arc(s(x - 14, y - 6, x + 14, y + 18), 20, 160, fill=INK, width=3 * SCALE)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def draw_example() -> None:
    """Writes the pair and the sketch of examples/jump."""
    folder = Path("examples/jump")
    folder.mkdir(parents=True, exist_ok=True)
    scene(110, 226, 0.12).save(folder / "first.png", optimize=True)
    scene(420, 226, 0.12).save(folder / "last.png", optimize=True)
    scene(260, 96, -0.08, lines_only=True).save(folder / "sketch_7.png", optimize=True)


def leap(seed: int) -> Iterator[Image.Image]:
    """The frames of a film of 4 seconds, 320x320 pixels, 24 a second: the ball leaps over the fence, once or twice."""
    random = Random(seed)
    start, end = random.uniform(60, 200), random.uniform(300, 450)
    top, ground = random.uniform(40, 150), 200
    if seed % 3 == 1:
        start, end = end, start
    leaps = random.choice([1, 2])
    for frame in range(FRAMES):
        time = frame / (FRAMES - 1)
        phase = time * leaps % 1
        if seed % 2:
            time = time * time * (3 - 2 * time)
        y = ground - (ground - top) * 4 * phase * (1 - phase)
        picture = scene(start + (end - start) * time, y, 0.25 * math.cos(2 * math.pi * phase))
        yield picture.crop((96, 0, 416, HEIGHT))


def draw_films(folder: Path, count: int) -> None:
    """Writes so many films, without loss."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        with av.open(folder / f"ball{seed}.mkv", "w") as film:
            stream = film.add_stream("ffv1", rate=24)
            stream.width, stream.height, stream.pix_fmt = 320, HEIGHT, "bgr0"
            for picture in leap(seed):
                film.mux(stream.encode(av.VideoFrame.from_image(picture)))
            film.mux(stream.encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=Path, metavar="DIR", help="draw films of the ball there instead of the pair")
    parser.add_argument("--count", type=int, default=12, help="of films (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.films:
        draw_films(arguments.films, arguments.count)
    else:
        draw_example()
