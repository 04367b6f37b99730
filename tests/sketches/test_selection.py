"""Frames that sketches guide are chosen as the paper says."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest

from tooncrafter_jax.sketches import BISECTION_DEPTHS, bisection_frames, choose_sketched_frames, random_frames

PAPER_SETS = {1: {8}, 2: {4, 8, 12}, 3: set(range(2, 15, 2)), 4: set(range(1, 16))}
"""Depth -> the paper's frame numbers, from 1, in a clip of 16 (spec section 8.7)."""


def zero_based(frames: set[int]) -> tuple[int, ...]:
    return tuple(sorted(frame - 1 for frame in frames))


def recursively(depth: int, left: int, right: int) -> set[int]:
    """The paper's rule as it is described: pick the middle, recurse into both halves."""
    if depth == 0:
        return set()
    middle = int(np.floor((left + right) / 2))
    return {middle} | recursively(depth - 1, left, middle) | recursively(depth - 1, middle, right)


class TestBisection:
    @pytest.mark.parametrize("depth", PAPER_SETS)
    def test_the_papers_sets(self, depth: int) -> None:
        assert bisection_frames(depth, 16) == zero_based(PAPER_SETS[depth])

    @pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 24, 33])
    def test_the_rule_at_any_length(self, length: int) -> None:
        for depth in range(1, 7):
            assert bisection_frames(depth, length) == zero_based(recursively(depth, 1, length))

    def test_a_segment_of_two_yields_its_left_end(self) -> None:
        assert bisection_frames(1, 2) == (0,)
        assert bisection_frames(60, 16) == tuple(range(15))  # has run out of segments long before

    @pytest.mark.parametrize(("depth", "length"), [(0, 16), (1, 0), (-1, 3)])
    def test_what_is_no_clip(self, depth: int, length: int) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            bisection_frames(depth, length)


class TestRandomSubset:
    def test_sizes_and_frames_are_uniform(self) -> None:
        """Each of 8 sizes and each frame as often as another, within five standard deviations."""
        rng, draws, length = np.random.default_rng(1), 8000, 8
        subsets = [random_frames(rng, length) for _ in range(draws)]
        assert all(list(s) == sorted(set(s)) and 0 <= s[0] and s[-1] < length for s in subsets)
        sizes = np.bincount([len(s) for s in subsets], minlength=length + 1)
        assert sizes[0] == 0
        tolerance = 5 * np.sqrt(draws * (1 / length) * (1 - 1 / length))
        assert np.abs(sizes[1:] - draws / length).max() < tolerance
        share = (length + 1) / 2 / length  # mean size over length
        hits = np.bincount([frame for s in subsets for frame in s], minlength=length)
        assert np.abs(hits - draws * share).max() < 5 * np.sqrt(draws * share * (1 - share))

    def test_subsets_of_a_size_are_uniform(self) -> None:
        rng, draws = np.random.default_rng(2), 6000
        pairs = [s for s in (random_frames(rng, 4) for _ in range(draws)) if len(s) == 2]
        counts = np.asarray([pairs.count((i, j)) for i in range(4) for j in range(i + 1, 4)])
        assert np.abs(counts - len(pairs) / 6).max() < 5 * np.sqrt(len(pairs) * (1 / 6) * (5 / 6))


class TestChoice:
    DRAWS = 6000

    def masks(self, **settings: Any) -> list[tuple[int, ...]]:
        rng = np.random.default_rng(3)
        return [tuple(np.flatnonzero(choose_sketched_frames(rng, 16, **settings)).tolist()) for _ in range(self.DRAWS)]

    def test_four_in_five_are_bisections_of_every_depth(self) -> None:
        """A random subset is one of the bisections too, with a probability that is known."""
        masks = self.masks()
        for depth in BISECTION_DEPTHS:
            frames = bisection_frames(depth, 16)
            expected = 0.8 / 4 + 0.2 / 16 / comb(16, len(frames))
            deviation = np.sqrt(expected * (1 - expected) / self.DRAWS)
            assert abs(masks.count(frames) / self.DRAWS - expected) < 4 * deviation

    @pytest.mark.parametrize("share", [None, 0.0, 0.25, 1.0])
    def test_the_share_of_bisections(self, share: float | None) -> None:
        """Four in five (spec section 8.7), or what is asked for."""
        sets = {bisection_frames(depth, 16) for depth in BISECTION_DEPTHS}
        chance = sum(1 / 16 / comb(16, len(s)) for s in sets)
        masks = self.masks() if share is None else self.masks(bisection_share=share)
        share = 0.8 if share is None else share
        expected = share + (1 - share) * chance
        found = np.mean([mask in sets for mask in masks])
        assert abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / self.DRAWS)

    def test_the_depths_that_are_asked_for(self) -> None:
        masks = self.masks(bisection_share=1.0, depths=(1, 3))
        assert set(masks) == {bisection_frames(1, 16), bisection_frames(3, 16)}
        assert abs(masks.count((7,)) / self.DRAWS - 0.5) < 4 * 0.5 / np.sqrt(self.DRAWS)

    def test_the_largest_random_subset(self) -> None:
        sizes = [len(mask) for mask in self.masks(bisection_share=0.0, most_random=3)]
        assert np.abs(np.bincount(sizes)[1:] - self.DRAWS / 3).max() < 5 * np.sqrt(self.DRAWS * 2 / 9)
        assert len(random_frames(np.random.default_rng(0), 2, most=9)) <= 2

    def test_a_mask_of_the_clips_length_that_is_never_empty(self) -> None:
        rng = np.random.default_rng(4)
        for length in (1, 2, 3, 16):
            for _ in range(50):
                mask = choose_sketched_frames(rng, length)
                assert mask.shape == (length,) and mask.dtype == np.bool_ and mask.any()

    def test_the_generator_decides(self) -> None:
        first, again, other = (
            [choose_sketched_frames(rng, 16).tolist() for _ in range(20)]
            for rng in map(np.random.default_rng, (5, 5, 6))
        )
        assert first == again != other

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
    def test_what_is_no_share(self, share: float) -> None:
        with pytest.raises(ValueError, match="bisection_share must be from 0 to 1"):
            choose_sketched_frames(np.random.default_rng(0), 16, share)
