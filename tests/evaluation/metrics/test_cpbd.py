"""CPBD is what a plain reading of the paper gives, pixel by pixel, and falls with blur."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from tests.evaluation.metrics.clips import CANNY_THRESHOLDS, batch, drawing
from tests.reference import GOLDEN
from tooncrafter_jax.evaluation.metrics.cpbd import Cpbd, canny_edges, cpbd, edge_widths

SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(picture.astype(float), (sigma, sigma, 0))).astype(np.uint8)


class PlainReading:
    """The definition again, with loops over pixels and without scipy: slow, and shares no line with the metric."""

    def __init__(self, frame: np.ndarray) -> None:
        red, green, blue = np.moveaxis(frame.astype(float), -1, 0)
        self.grey = np.round(0.299 * red + 0.587 * green + 0.114 * blue)
        self.height, self.width = self.grey.shape

    def at(self, picture: np.ndarray, y: int, x: int) -> float:
        return picture[min(max(y, 0), self.height - 1), min(max(x, 0), self.width - 1)]

    def filtered(self, picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
        reach_y, reach_x = weights.shape[0] // 2, weights.shape[1] // 2
        found = np.zeros_like(picture)
        padded = np.pad(picture, ((reach_y, reach_y), (reach_x, reach_x)), mode="edge")
        for i in range(weights.shape[0]):
            for j in range(weights.shape[1]):
                found += weights[i, j] * padded[i : i + self.height, j : j + self.width]
        return found

    def gradients(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.filtered(picture, np.array(SOBEL)), self.filtered(picture, np.array(SOBEL).T)

    def canny(self) -> np.ndarray:
        bell = np.array([math.exp(-0.5 * i * i) for i in range(-4, 5)])
        bell /= bell.sum()
        across, down = self.gradients(self.filtered(self.filtered(self.grey, bell[:, None]), bell[None]))
        strength = np.sqrt(across**2 + down**2)
        steps = [strength.max() * k / 64 for k in range(65)]
        high = next(step for step in steps[1:] if (strength < step).mean() > 0.7)
        ridge = np.zeros(self.grey.shape, bool)
        for y in range(1, self.height - 1):
            for x in range(1, self.width - 1):
                gx, gy, here = across[y, x], down[y, x], strength[y, x]
                if here < 0.4 * high:
                    continue
                larger = max(abs(gx), abs(gy))
                ridge[y, x] = all(
                    here >= self.between(strength, y + way * gy / larger, x + way * gx / larger) - 1e-9
                    for way in (1, -1)
                )
        edges = ridge & (strength >= high)
        waiting = list(zip(*np.nonzero(edges), strict=True))
        while waiting:
            y, x = waiting.pop()
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if ridge[near] and not edges[near]:
                    edges[near] = True
                    waiting.append(near)
        return edges

    def between(self, picture: np.ndarray, y: float, x: float) -> float:
        top, left = math.floor(y), math.floor(x)
        v, u = y - top, x - left
        upper = (1 - u) * self.at(picture, top, left) + u * self.at(picture, top, left + 1)
        lower = (1 - u) * self.at(picture, top + 1, left) + u * self.at(picture, top + 1, left + 1)
        return (1 - v) * upper + v * lower

    def slope(self, line: np.ndarray, i: int) -> float:
        """Central difference, one-sided at an end."""
        low, high = max(i - 1, 0), min(i + 1, len(line) - 1)
        return (line[high] - line[low]) / (high - low)

    def widths(self) -> np.ndarray:
        strength = np.abs(self.gradients(self.grey)[0])
        mean = (strength**2).mean()
        found = np.zeros(self.grey.shape, int)
        for y in range(1, self.height - 1):
            for x in range(1, self.width - 1):
                gx, gy = self.slope(self.grey[y], x), self.slope(self.grey[:, x], y)
                if strength[y, x] ** 2 <= 4 * mean or math.atan2(abs(gy), abs(gx)) > math.pi / 8 + 1e-12:
                    continue
                if strength[y, x - 1] > strength[y, x] or strength[y, x + 1] >= strength[y, x]:
                    continue
                row, sign = self.grey[y], 1 if gx >= 0 else -1
                left, right = x - 1, x + 1
                while left > 0 and sign * (row[left] - row[left - 1]) > 0:
                    left -= 1
                while right < self.width - 1 and sign * (row[right + 1] - row[right]) > 0:
                    right += 1
                found[y, x] = right - left
        return found

    def cpbd(self) -> float:
        edges, widths = self.canny(), self.widths()
        bins = [0] * 101
        for top in range(0, self.height - 63, 64):
            for left in range(0, self.width - 63, 64):
                block = slice(top, top + 64), slice(left, left + 64)
                if edges[block].sum() <= 0.002 * 64 * 64:
                    continue
                noticeable = 5 if self.grey[block].max() - self.grey[block].min() <= 50 else 3
                for width in widths[block].ravel():
                    if width > 0:
                        bins[round(100 * (1 - math.exp(-((width / noticeable) ** 3.6))))] += 1
        return sum(bins[:64]) / sum(bins)


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    sharp = drawing()
    faint = (100 + sharp[64:, :150] // 8).astype(np.uint8)  # of low contrast, smaller
    return {"sharp": sharp, "soft": blurred(sharp, 0.7), "blurred": blurred(sharp, 1.5), "faint": blurred(faint, 0.8)}


@pytest.mark.parametrize("name", ["sharp", "soft", "blurred", "faint"])
def test_against_a_plain_reading(pictures: dict[str, np.ndarray], name: str) -> None:
    assert cpbd(pictures[name]) == pytest.approx(PlainReading(pictures[name]).cpbd(), abs=1e-6)


def test_edges_are_those_of_scikit_image() -> None:
    """Its canny of version 0.26.0 on the drawing's mean grey, made by tests/golden/metrics/make_skimage.py."""
    with np.load(GOLDEN / "metrics" / "skimage.npz") as theirs:
        expected = theirs["canny"]
    assert expected.sum() > 1000
    np.testing.assert_array_equal(canny_edges(drawing().astype(np.float64).mean(-1), CANNY_THRESHOLDS), expected)


def test_blur_is_seen(pictures: dict[str, np.ndarray]) -> None:
    sharp, soft, blurry = (cpbd(pictures[name]) for name in ("sharp", "soft", "blurred"))
    assert sharp > 0.8 and 0.4 > soft > 0.2 and blurry < 0.1


@pytest.mark.parametrize(
    ("contrast", "length", "unnoticed"), [(100, 2, 1), (100, 3, 1), (100, 4, 0), (40, 5, 1), (40, 6, 0)]
)
def test_ramps_of_a_known_width(contrast: int, length: int, unnoticed: int) -> None:
    """The just noticeable width itself counts as unnoticed: 1 - 1/e is 63 %, rounded."""
    row = np.full(64, 80)
    row[30 : 30 + length + 1] = 80 + np.rint(np.linspace(0, contrast, length + 1))
    row[30 + length :] = 80 + contrast
    frame = np.broadcast_to(row[None, :, None], (64, 64, 3)).astype(np.uint8)
    widths = edge_widths(frame[..., 0].astype(np.float64))
    assert set(widths[widths > 0]) == {length}
    assert cpbd(frame) == unnoticed


def test_frames_without_edges_are_left_out() -> None:
    videos = np.full((2, 2, 64, 70, 3), 77, np.uint8)
    videos[0, 1, :, 30:] = 200
    rows = Cpbd().measure(batch(videos, videos))
    np.testing.assert_array_equal(rows["cpbd"], [[np.nan, 1], [np.nan, np.nan]])
    assert Cpbd().summarise(rows) == 1
    assert np.isnan(cpbd(drawing()[:63]))
