"""Pictures and clips that the packaged LPIPS and I3D were run on; made from formulas, so they need not be stored."""

from __future__ import annotations

import numpy as np

from tooncrafter_jax.weights.rule import unit_noise


def pictures(count: int = 2, height: int = 47, width: int = 56) -> np.ndarray:
    """Smooth colours with noise and a flat black bar, (count, height, width, 3) in [-1, 1]."""
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = [np.sin(y * (1 + i) + np.cos(x * (2 - 0.5 * c)) + c) for i in range(count) for c in range(3)]
    smooth = np.reshape(waves, (count, 3, height, width)).transpose(0, 2, 3, 1)
    noisy = 0.8 * smooth + 0.1 * unit_noise("metric.pictures", smooth.shape, np.float64)
    noisy[:, -height // 4 :, : width // 2] = -1
    return np.clip(noisy, -1, 1).astype(np.float32)


def changed(images: np.ndarray) -> np.ndarray:
    """The pictures moved by three pixels and with noise of a tenth."""
    noise = unit_noise("metric.changed", images.shape)
    return np.clip(np.roll(images, 3, axis=2) + np.float32(0.1) * noise, -1, 1)


def clip(frames: int = 16, size: int = 224) -> np.ndarray:
    """A disc that falls and grows in front of a striped ground, (1, frames, size, size, 3) in [-1, 1]."""
    t, y, x = np.mgrid[0:frames, 0:size, 0:size].astype(np.float64)
    t, y, x = t / frames, y / size, x / size
    distance = np.hypot(x - 0.2 - 0.6 * t, y - 0.3 - 0.5 * t**2)
    disc = 1 / (1 + np.exp((distance - 0.1 - 0.1 * t) * 200))[..., None]
    ground = np.stack([np.sin(20 * x + 3 * t), np.cos(17 * y), np.sin(9 * (x + y))], axis=-1)
    video = (1 - disc) * 0.7 * ground + disc * np.array([0.9, -0.2, -0.7])
    return np.clip(video, -1, 1)[None].astype(np.float32)
