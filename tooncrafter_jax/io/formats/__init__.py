"""Output formats by name; a new one is a file here, a line below and a test."""

from __future__ import annotations

from collections.abc import Mapping

from tooncrafter_jax.io.formats.apng import Apng, write_apng
from tooncrafter_jax.io.formats.gif import Gif, write_gif
from tooncrafter_jax.io.formats.mov import Mov, write_mov
from tooncrafter_jax.io.formats.mp4 import PIXEL_FORMATS, Mp4, write_mp4
from tooncrafter_jax.io.formats.output_format import PUBLISHED_PIXEL_FORMAT, FormatOptions, OutputFormat
from tooncrafter_jax.io.formats.png import Png, write_png_sequence
from tooncrafter_jax.io.formats.sheet_folder import SheetFolder
from tooncrafter_jax.io.formats.webm import Webm, write_webm
from tooncrafter_jax.io.formats.webp import Webp, write_webp
from tooncrafter_jax.io.timesheets import TIMESHEETS

FORMATS: Mapping[str, OutputFormat] = {
    form.name: form
    for form in (Mp4(), Gif(), Webp(), Apng(), Webm(), Mov(), Png(), *map(SheetFolder, TIMESHEETS.values()))
}
"""Time sheets stand at the end."""
DEFAULT_FORMAT = "mp4"

__all__ = [
    "DEFAULT_FORMAT",
    "FORMATS",
    "PIXEL_FORMATS",
    "PUBLISHED_PIXEL_FORMAT",
    "FormatOptions",
    "OutputFormat",
    "format_of_ending",
    "write_apng",
    "write_gif",
    "write_mov",
    "write_mp4",
    "write_png_sequence",
    "write_webm",
    "write_webp",
]


def format_of_ending(ending: str) -> str | None:
    """The format whose files end so, in any case and without the dot; None if there is none."""
    return next((form.name for form in FORMATS.values() if ending.lower() in form.endings), None)
