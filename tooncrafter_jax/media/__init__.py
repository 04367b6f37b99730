"""Pictures in, videos out: reading and fitting drawings, and writing what was generated. Needs no JAX."""

from tooncrafter_jax.media.images import (
    BLACK,
    SUPPORTED_EXTENSIONS,
    WHITE,
    Colour,
    fit_image,
    grey_of_rgb,
    read_image,
    resize_tensor_like_app,
    rgb_of_image,
    sketch_to_hint,
)
from tooncrafter_jax.media.writers import (
    PUBLISHED_FPS,
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
    "PUBLISHED_FPS",
    "SUPPORTED_EXTENSIONS",
    "WHITE",
    "Colour",
    "check_playback_rate",
    "check_writable",
    "fit_image",
    "grey_of_rgb",
    "read_image",
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
