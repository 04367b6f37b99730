"""Pictures in, videos out: reading and fitting drawings, and writing what was generated. Needs no JAX."""

from tooncrafter_jax.io.fitting import Cut, cut_of, fit_image, resize_tensor_like_app
from tooncrafter_jax.io.images import (
    SUPPORTED_EXTENSIONS,
    check_is_picture_file,
    picture_of_image,
    read_image,
    read_picture,
    rgb_of_image,
)
from tooncrafter_jax.io.sizes import BLACK, WHITE, Colour
from tooncrafter_jax.io.sketches import SketchSheet, grey_of_rgb, read_sheet, sketch_to_hint
from tooncrafter_jax.io.transparency import over
from tooncrafter_jax.io.writers import (
    PIXEL_FORMATS,
    PUBLISHED_FPS,
    PUBLISHED_PIXEL_FORMAT,
    check_playback_rate,
    check_writable,
    to_uint8,
    write_contact_sheet,
    write_gif,
    write_json,
    write_mp4,
    write_png_sequence,
    write_webp,
)

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
    "write_contact_sheet",
    "write_gif",
    "write_json",
    "write_mp4",
    "write_png_sequence",
    "write_webp",
]
