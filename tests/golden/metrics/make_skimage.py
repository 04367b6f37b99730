"""Runs scikit-image 0.26.0 on the pictures of the tests of the metrics.

Writes skimage.npz beside this file. Needs scikit-image, which the tests do not: python -m
tests.golden.metrics.make_skimage
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skimage.color import rgb2lab  # pyright: ignore[reportMissingImports]
from skimage.feature import canny  # pyright: ignore[reportMissingImports]
from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # pyright: ignore[reportMissingImports]

from tests.evaluation.metrics.clips import CANNY_THRESHOLDS, changed_clips, clips, drawing
from tooncrafter_jax.io.sketches import grey_of_rgb


def main() -> None:
    """Writes the file."""
    pairs = [
        (a, b) for made, true in zip(changed_clips(), clips(), strict=True) for a, b in zip(made, true, strict=True)
    ]
    shape = clips().shape[:2]
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
        "channel_axis": -1,
    }
    low, high = CANNY_THRESHOLDS
    np.savez_compressed(
        Path(__file__).with_name("skimage.npz"),
        psnr=np.reshape([peak_signal_noise_ratio(b, a, data_range=255) for a, b in pairs], shape),
        ssim=np.reshape([structural_similarity(a, b, **options) for a, b in pairs], shape),
        ssim_grey=np.reshape(
            [structural_similarity(grey_of_rgb(a), grey_of_rgb(b), data_range=255) for a, b in pairs], shape
        ),
        mean_lab=np.reshape([rgb2lab(a).mean((0, 1)) for a, _ in pairs], (*shape, 3)),
        canny=canny(drawing().astype(np.float64).mean(-1), sigma=1.0, low_threshold=low, high_threshold=high),
    )


if __name__ == "__main__":
    main()
