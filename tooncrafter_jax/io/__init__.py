"""Pictures in, videos out: reading and fitting drawings, and writing what was generated. Needs no JAX."""

from tooncrafter_jax.io.atomic_files import check_writable
from tooncrafter_jax.io.contact_sheets import write_contact_sheet
from tooncrafter_jax.io.fitting import Cut, cut_of, fit_image, resize_tensor_like_app
from tooncrafter_jax.io.formats import (
    PIXEL_FORMATS,
    PUBLISHED_PIXEL_FORMAT,
    write_apng,
    write_gif,
    write_mov,
    write_mp4,
    write_png_sequence,
    write_webm,
    write_webp,
)
from tooncrafter_jax.io.frames import PUBLISHED_FPS, check_playback_rate, to_uint8
from tooncrafter_jax.io.images import (
    SUPPORTED_EXTENSIONS,
    check_is_picture_file,
    picture_of_image,
    read_image,
    read_picture,
    rgb_of_image,
)
from tooncrafter_jax.io.json_files import write_json
from tooncrafter_jax.io.sizes import BLACK, WHITE, Colour
from tooncrafter_jax.io.sketches import SketchSheet, grey_of_rgb, read_sheet, sketch_to_hint
from tooncrafter_jax.io.transparency import over

__all__ = [
    "BLACK",
    "PIXEL_FORMATS",
    "PUBLISHED_FPS",
    "PUBLISHED_PIXEL_FORMAT",
    "SUPPORTED_EXTENSIONS",
    "WHITE",
    "Colour",
    "Cut",
    "SketchSheet",
    "check_is_picture_file",
    "check_playback_rate",
    "check_writable",
    "cut_of",
    "fit_image",
    "grey_of_rgb",
    "over",
    "picture_of_image",
    "read_image",
    "read_picture",
    "read_sheet",
    "resize_tensor_like_app",
    "rgb_of_image",
    "sketch_to_hint",
    "to_uint8",
    "write_apng",
    "write_contact_sheet",
    "write_gif",
    "write_json",
    "write_mov",
    "write_mp4",
    "write_png_sequence",
    "write_webm",
    "write_webp",
]
