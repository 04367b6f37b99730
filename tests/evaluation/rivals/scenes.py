"""Clips whose true frames are known, and requests for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest

FRAMES = 16
Rival = Callable[[list[ClipRequest]], np.ndarray]


def sliding_square(height: int = 96, width: int = 128, phase: float = 0.0) -> np.ndarray:
    """A patterned square that slides a pixel a frame to the right over soft waves, uint8 (16, height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (9 + 2 * c) + phase) + np.cos(y / (8 - c) + np.sin(x / 11) + c) for c in range(3)]
    ground = np.stack(waves, axis=-1) * 45 + 128
    v, u = np.mgrid[0:32, 0:32]
    square = np.stack([np.sin(u / 3) * np.cos(v / 4), np.cos(u / 5 + v / 6), np.sin(v / 3)], axis=-1) * 100 + 140
    frames = np.repeat(ground[None], FRAMES, axis=0)
    for index in range(FRAMES):
        frames[index, 30 : 30 + 32, 30 + index : 30 + index + 32] = square
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def request(video: np.ndarray, clip: str = "clip") -> ClipRequest:
    """For the clip's end frames."""
    return ClipRequest(clip, video[0], video[-1], len(video))


def reverse(video: np.ndarray) -> ClipRequest:
    """For the clip played backwards."""
    return ClipRequest("backwards", video[-1], video[0], len(video))


def psnr(ours: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise ratio in dB; 168 for equal pictures."""
    return float(10 * np.log10(255**2 / (np.mean((ours.astype(np.float64) - truth) ** 2) + 1e-12)))


def check_ends_batch_and_sizes(rival: Rival, height: int, width: int) -> None:
    """Both ends are the pictures themselves, and three clips together are those made one by one."""
    clips = [sliding_square(height, width, phase) for phase in (0.0, 1.0, 2.0)]
    together = rival([request(clip) for clip in clips])
    assert together.shape == (3, FRAMES, height, width, 3) and together.dtype == np.uint8
    for clip, video in zip(clips, together, strict=True):
        np.testing.assert_array_equal(video[[0, -1]], clip[[0, -1]])
        np.testing.assert_array_equal(rival([request(clip)])[0], video)
        assert psnr(video[1:-1], clip[1:-1]) > 25  # not another clip of the batch, nor shifted
    assert psnr(together[0], together[1]) < 25
