"""Near-duplicates: the same as by comparing all with all."""

import time

import numpy as np
import pytest

from tooncrafter_jax.curation.duplicates import find_duplicates
from tooncrafter_jax.errors import UserError


def _codes(count: int, num_bytes: int, seed: int, groups: int, flips: int) -> list[tuple[str, str]]:
    """Codes around a few centres, so that there are many near ones at all distances."""
    random = np.random.default_rng(seed)
    centres = random.integers(0, 2, (groups, 8 * num_bytes))
    bits = centres[random.integers(0, groups, count)]
    for row in bits:
        row[random.choice(8 * num_bytes, random.integers(0, flips), replace=False)] ^= 1
    return [(f"clip{i:05}", np.packbits(row).tobytes().hex()) for i, row in enumerate(bits)]


def _by_comparing_all(fingerprints: list[tuple[str, str]], max_bits: int) -> dict[str, str]:
    kept: list[tuple[str, int]] = []
    duplicates = {}
    for name, digits in fingerprints:
        code = int(digits, 16)
        near = [(bin(code ^ other).count("1"), i) for i, (_, other) in enumerate(kept)]
        if near and min(near)[0] <= max_bits:
            duplicates[name] = kept[min(near)[1]][0]
        else:
            kept.append((name, code))
    return duplicates


@pytest.mark.parametrize(("num_bytes", "max_bits"), [(8, 0), (8, 3), (8, 6), (24, 19), (8, 20)])
def test_the_same_as_comparing_all_with_all(num_bytes, max_bits):
    fingerprints = _codes(400, num_bytes, max_bits, groups=12, flips=2 * max_bits + 4)
    found = find_duplicates(fingerprints, max_bits / (8 * num_bytes))
    assert found == _by_comparing_all(fingerprints, max_bits)
    assert 20 < len(found) < 400


def test_the_first_is_kept_and_those_without_a_fingerprint_are_like_no_other():
    clips = [("b", "ff00"), ("a", "ff01"), ("c", ""), ("d", ""), ("e", "ff"), ("f", "00ff")]
    assert find_duplicates(clips, 1 / 16) == {"a": "b"}
    assert find_duplicates(clips, 0.0) == {}


def test_what_is_near_only_to_a_duplicate_is_kept():
    assert find_duplicates([("a", "00"), ("b", "01"), ("c", "03")], 1 / 8) == {"b": "a"}


def test_a_share_is_met_exactly():
    assert find_duplicates([("a", "0000"), ("b", "0007")], 3 / 16) == {"b": "a"}
    assert find_duplicates([("a", "0000"), ("b", "0007")], 2.99 / 16) == {}


def test_ten_thousand_clips_take_seconds():
    """Comparing all with all of them this way would take 50 million comparisons."""
    fingerprints = _codes(10_000, 24, 0, groups=8000, flips=24)
    start = time.monotonic()
    assert len(find_duplicates(fingerprints, 0.1)) > 1000
    assert time.monotonic() - start < 20


def test_a_fingerprint_that_is_none_is_reported():
    with pytest.raises(UserError, match="'xyz' of clip 'a' is not hexadecimal"):
        find_duplicates([("a", "xyz")], 0.1)
