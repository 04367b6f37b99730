"""Colours as the eye sees their differences, CIE 1976 L*a*b*, and back."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, UInt8

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear RGB with the primaries of ITU-R BT.709 to CIE XYZ, a row each (Poynton's Color FAQ, question 18)."""
WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of the illuminant D65 under the observer of 1931."""
_TO_WHITE = (np.array(TO_XYZ) / np.array(WHITE)[:, None]).astype(np.float32)
_FROM_WHITE = np.linalg.inv(np.array(TO_XYZ) / np.array(WHITE)[:, None]).astype(np.float32)


def lab_of_srgb(
    colours: UInt8[np.ndarray, "*shape 3"] | Float32[np.ndarray, "*shape 3"],
) -> Float32[np.ndarray, "*shape 3"]:
    """From sRGB (IEC 61966-2-1), 0 to 255, to L* in [0, 100] and a*, b* of about [-100, 100]."""
    if colours.dtype == np.uint8:
        linear = _LINEAR[colours]
    else:
        coded = np.clip(colours / np.float32(255), 0, 1)
        linear = linear_of_coded(coded).astype(np.float32)
    ratios = linear @ _TO_WHITE.T
    bent = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    x, y, z = bent[..., 0], bent[..., 1], bent[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def srgb_of_lab(lab: Float32[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape 3"]:
    """The inverse of `lab_of_srgb`, rounded; what no screen can show is clipped, each of red, green and blue alone."""
    y = (lab[..., 0] + 16) / 116
    bent = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    ratios = np.where(bent > 6 / 29, bent**3, (116 * bent - 16) * (27 / 24389))
    linear = np.clip(ratios @ _FROM_WHITE.T, 0, 1)
    return np.round(255 * coded_of_linear(linear)).astype(np.uint8)


def linear_of_coded(coded: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Light of sRGB's values, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)


def coded_of_linear(light: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The inverse of `linear_of_coded`."""
    return np.where(light > 0.0031308, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055, 12.92 * light)


_LINEAR = linear_of_coded(np.arange(256) / 255).astype(np.float32)
"""Linear values of the 256 coded ones."""
