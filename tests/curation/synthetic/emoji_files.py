"""Tiny animated emoji in folders laid out like the packages."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 48


def write_package(folder: Path, names: dict[str, dict]) -> Path:
    """Writes `folder/package/assets/NAME.webp` by what `write_emoji` takes."""
    for name, options in names.items():
        write_emoji(folder / "package" / "assets" / f"{name}.webp", **options)
    (folder / "package" / "package.json").write_text('{"license": "MIT"}')
    return folder


def write_emoji(path: Path, *, frames=20, hue=(220, 60, 40), shape="ball", milliseconds: int | list[int] = 42) -> None:
    """A disc or a bust that moves, on transparency; one frame makes a still picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [_picture(index / max(1, frames), hue, shape) for index in range(frames)]
    if frames == 1:
        pictures[0].save(path, "WEBP", lossless=True)
        return
    pictures[0].save(
        path, "WEBP", save_all=True, append_images=pictures[1:], duration=milliseconds, lossless=True, loop=0
    )


def _picture(share: float, hue, shape: str) -> Image.Image:
    picture = Image.new("RGBA", (SIDE * 4, SIDE * 4), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    swing = 24 * np.sin(2 * np.pi * share)
    if shape == "bust":
        draw.rectangle([40, 90, 150, 180], fill=(*hue, 255))
        draw.ellipse([60 + swing, 30, 130 + swing, 100], fill=(250, 200, 90, 255))
    elif shape == "leaving":  # over the right border in the later half
        draw.ellipse([40 + 150 * share, 50, 120 + 150 * share, 130], fill=(*hue, 255))
    else:
        draw.ellipse([50 + swing, 60 - swing / 2, 130 + swing, 140 - swing / 2], fill=(*hue, 255))
        draw.ellipse([70 + swing, 80 - swing / 2, 86 + swing, 96 - swing / 2], fill=(10, 10, 10, 255))
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)
