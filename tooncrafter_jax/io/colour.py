"""Colours of any kind to sRGB: embedded profiles, PNG's gAMA and cHRM, and cameras' Adobe RGB.

The model has seen sRGB alone. What is sRGB already, to within two levels, is left as it is.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from tooncrafter_jax.io.cielab import coded_of_linear, linear_of_coded
from tooncrafter_jax.io.repairs import DECODING_ERRORS
from tooncrafter_jax.notes import note

SAME_COLOUR = 2
"""Levels of 255 by which profiles of sRGB differ among each other, with their rounding."""
SRGB_GAMMA = 1 / 2.2
"""The gAMA of pictures that are sRGB: the PNG specification's value for its curve."""
SAME_GAMMA = 0.05
"""Relative difference of gAMA that is not worth a conversion, the threshold of the PNG reference library."""
WRITTEN_GAMMA = 1e-4
"""Within this, gAMA says sRGB's curve beside other primaries; Adobe RGB's differs by 4e-4."""
SRGB_CHROMATICITY = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""White, red, green and blue as x and y (IEC 61966-2-1), in the order of PNG's cHRM."""
ADOBE_GAMMA = 256 / 563
ADOBE_CHROMATICITY = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
"""Adobe RGB (1998), version 2005-05, section 4.3."""
SAME_CHROMATICITY = 0.01
_ROWS_AT_A_TIME = 256
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""XYZ to the cone responses in which white points are adapted (ICC.1:2022, annex E)."""

_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
"""What ImageCms raises for a profile that is none, or not one for these colours."""


def to_srgb(image: Image.Image, info: Mapping[str | tuple[int, int], Any], exif: Image.Exif, name: str) -> Image.Image:
    """An image's colours as 8-bit sRGB; says on one line what was converted.

    Args:
      image: of mode L, I;16, CMYK or RGB.
      info: of the file, as Pillow gives it: `icc_profile`, `srgb`, `gamma`, `chromaticity`.
      exif: of the file.
      name: of the picture, for notes.

    Source: the order of precedence is that of PNG (third edition, section 4.3) and of DCF 2.0 for cameras.
    """
    profile = info.get("icc_profile")
    if profile:
        found = _by_profile(image, profile, name)
        if found is not None:
            return found
    elif image.mode == "CMYK":
        note(f"{name} has printing colours without a profile: converted by the plain formula, which may be off")
    elif "srgb" not in info and ("gamma" in info or "chromaticity" in info):
        return _by_curve(image, info.get("gamma"), info.get("chromaticity"), "gAMA and cHRM values", name)
    elif _is_adobe_rgb(exif):
        return _by_curve(image, ADOBE_GAMMA, ADOBE_CHROMATICITY, "camera setting Adobe RGB", name)
    return _plain(image)


def _by_profile(image: Image.Image, profile: bytes, name: str) -> Image.Image | None:
    """By an embedded profile; None, with a note, where it is broken or for other colours."""
    grey = image.mode not in ("RGB", "CMYK")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = profile[16:20].decode("latin-1").strip()  # of the ICC header
        mode = "L" if grey and space == "GRAY" else "RGB" if grey else image.mode
        if space != {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[mode]:
            note(f"{name} has a profile for {space or 'no'} colours on {image.mode} pixels: it is ignored")
            return None
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        if intent == ImageCms.Intent.ABSOLUTE_COLORIMETRIC:  # would give the paper's colour to white
            intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            intent,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        title = " ".join(ImageCms.getProfileDescription(source).split())[:60] or "without a name"
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        if grey:
            levels = np.asarray(ImageCms.applyTransform(ramp.convert(mode), transform))[0]
            converted = None if _is_same(levels, np.asarray(ramp.convert("RGB"))[0]) else _levels(image, levels)
        elif mode == "RGB" and _is_same(_probe(), np.asarray(ImageCms.applyTransform(_probe_image(), transform))):
            converted = None
        else:
            converted = ImageCms.applyTransform(image, transform)
    except _PROFILE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        note(f"{name} has a colour profile that cannot be used ({reason}): it is ignored")
        return None
    if converted is None:
        return _plain(image)
    note(f"{name} has the colour profile '{title}': converted to sRGB")
    return converted


def _probe() -> np.ndarray:
    """(1, N, 3): a coarse grid of all colours, and all greys."""
    steps = np.linspace(0, 255, 9).round()
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    return np.concatenate([grid, greys])[None].astype(np.uint8)


def _probe_image() -> Image.Image:
    return Image.fromarray(_probe())


def _is_same(before: np.ndarray, after: np.ndarray) -> bool:
    return int(np.abs(before.astype(int) - after.astype(int)).max()) <= SAME_COLOUR


def _plain(image: Image.Image) -> Image.Image:
    """The picture's numbers taken for sRGB; 16 bits are scaled to 8."""
    if image.mode == "I;16":
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    return image.convert("RGB")


def _levels(image: Image.Image, levels: np.ndarray) -> Image.Image:
    """A grey picture by a table of 256 colours; between them, 16-bit values are interpolated."""
    if image.mode == "L":
        return Image.fromarray(levels[np.asarray(image)])
    greys = np.arange(65536) / 257
    table = np.stack([np.interp(greys, np.arange(256), levels[:, channel]) for channel in range(3)], axis=-1)
    return Image.fromarray(np.round(table).astype(np.uint8)[np.asarray(image)])


def _is_adobe_rgb(exif: Image.Exif) -> bool:
    """Whether a camera says so in DCF's way, which has no profile: an uncalibrated colour space and the rule R03."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged tags
            if exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) != 0xFFFF:
                return False
            rule = exif.get_ifd(ExifTags.IFD.Interop).get(1)
    except (*DECODING_ERRORS, KeyError, TypeError):  # damaged tags say nothing
        return False
    return (rule.decode("latin-1") if isinstance(rule, bytes) else str(rule)).startswith("R03")


def _by_curve(
    image: Image.Image, gamma: float | None, chromaticity: Sequence[float] | None, what: str, name: str
) -> Image.Image:
    """Colours that are given by the exponent of their curve and the chromaticities of their primaries."""
    matrix = None
    if chromaticity is not None:
        differs = len(chromaticity) != 8 or np.abs(np.subtract(chromaticity, SRGB_CHROMATICITY)).max() > (
            SAME_CHROMATICITY
        )
        matrix = _matrix(chromaticity) if differs else np.eye(3)
    usable_gamma = gamma is None or (math.isfinite(gamma) and 0.1 <= gamma <= 10)
    if not usable_gamma or (chromaticity is not None and matrix is None):
        note(f"{name} has impossible {what}: they are ignored")
        return _plain(image)
    primaries = None if matrix is None or np.array_equal(matrix, np.eye(3)) or image.mode != "RGB" else matrix
    near = SAME_GAMMA if primaries is None else WRITTEN_GAMMA
    curve = None if gamma is None or abs(gamma / SRGB_GAMMA - 1) <= near else gamma
    if curve is None and primaries is None:
        return _plain(image)
    note(f"{name} has {what} other than sRGB's: converted to sRGB")
    top = 65535 if image.mode == "I;16" else 255
    values = np.arange(top + 1) / top
    linear = linear_of_coded(values) if curve is None else values ** (1 / curve)
    if primaries is None:
        table = np.round(255 * coded_of_linear(linear)).astype(np.uint8)
        return Image.fromarray(table[np.asarray(image)]).convert("RGB")
    stored = np.asarray(image)
    result = np.empty_like(stored)
    for start in range(0, len(stored), _ROWS_AT_A_TIME):  # a large picture in floats would need gigabytes
        rows = slice(start, start + _ROWS_AT_A_TIME)
        light = linear[stored[rows]] @ primaries.T
        result[rows] = np.round(255 * coded_of_linear(np.clip(light, 0, 1))).astype(np.uint8)
    return Image.fromarray(result)


def _matrix(chromaticity: Sequence[float]) -> np.ndarray | None:
    """Linear colours of these primaries to those of sRGB, white to white; None if there are no such colours."""
    if len(chromaticity) != 8:
        return None
    source, target = _to_xyz(chromaticity), _to_xyz(SRGB_CHROMATICITY)
    if source is None or target is None:
        return None
    before, after = _BRADFORD @ source.sum(axis=1), _BRADFORD @ target.sum(axis=1)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(after / before) @ _BRADFORD
    matrix = np.linalg.inv(target) @ adaptation @ source
    return matrix if np.isfinite(matrix).all() else None


def _to_xyz(chromaticity: Sequence[float]) -> np.ndarray | None:
    """Linear colours of these primaries to XYZ, white having a luminance of 1."""
    points = np.reshape(chromaticity, (4, 2)).astype(float)
    if (points[:, 1] < 1e-4).any() or (points < 0).any() or (points.sum(axis=1) > 1.0001).any():
        return None
    xyz = np.stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)]) / points[:, 1]
    white, primaries = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(primaries)) < 1e-6:
        return None
    return primaries * np.linalg.solve(primaries, white)
