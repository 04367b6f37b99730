"""Clips whose colours drift by a known amount."""

from __future__ import annotations

import numpy as np

from tooncrafter_jax.io.cielab import lab_of_srgb, srgb_of_lab

FRAMES, HEIGHT, WIDTH = 9, 96, 144


def scene(at: float, fade: float = 0) -> np.ndarray:
    """A painted house in a landscape, before which a large dark ball crosses; `fade` darkens all."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = (150, 200, 235)
    picture[60:] = (110, 160, 80)
    picture[30:70, 80:125] = (200, 150, 110)
    picture[30:70:6, 80:125] = (60, 40, 40)
    picture[40:55, 95:110] = (250, 240, 170)
    distance = np.hypot(y - 60, x - (25 + 90 * at))
    picture[distance < 18] = (40, 40, 60)
    picture[distance < 15] = (200, 60, 50)
    return np.round(picture * (1 - fade)).astype(np.uint8)


def clip(fade: float = 0) -> np.ndarray:
    """The scene with the ball from left to right."""
    return np.stack([scene(float(at), fade * float(at)) for at in np.linspace(0, 1, FRAMES)])


def drifted(frames: np.ndarray, noise: float = 0) -> np.ndarray:
    """With a tint that is strongest in the middle and grows to the right, and Gaussian noise; the ends have little."""
    rng = np.random.default_rng(0)
    strength = np.sin(np.linspace(0.1, np.pi - 0.1, len(frames)))[:, None, None, None]
    slope = np.linspace(0.5, 1, frames.shape[2])[None, None, :, None]
    tint = np.array([5, -4, 7]) * strength * slope
    uneven = rng.normal(0, noise, frames.shape) if noise else 0
    return srgb_of_lab((lab_of_srgb(frames) + tint + uneven).astype(np.float32))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In L*a*b*, of each pixel."""
    return np.sqrt(((lab_of_srgb(one) - lab_of_srgb(other)) ** 2).sum(-1))
