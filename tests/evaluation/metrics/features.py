"""Features without a network."""

from __future__ import annotations

import numpy as np


def correlated(count: int, features: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Normal features whose covariance is neither diagonal nor round, float64 (count, features)."""
    mix = np.random.default_rng(1000 + seed).normal(size=(features, features)) / np.sqrt(features)
    return np.random.default_rng(seed).normal(size=(count, features)) @ mix + shift


class FakeLogits:
    """Stands for I3D: twelve means of each clip; counts how often it runs and on how many clips."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """(B, 12) float32."""
        self.calls.append(len(clips))
        halves = np.stack([clips[:, :, :20].mean((1, 2, 3)), clips[:, :, 20:].mean((1, 2, 3))], 1)
        ends = np.stack([clips[:, 0].std((1, 2)), clips[:, -1].std((1, 2))], 1)
        return np.concatenate([halves, ends], 1).reshape(len(clips), 12).astype(np.float32)
