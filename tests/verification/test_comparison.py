"""Errors, scales and verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from tooncrafter_jax.verification.comparison import compare, compare_bound, compare_expression, scale_of

RANDOM = np.random.default_rng(0).normal(3.0, 2.0, (50, 40)).astype(np.float32)


def test_errors_are_relative_to_the_standard_deviation():
    ours = RANDOM.copy()
    ours[3, 4] += 2e-3
    found = compare(ours, RANDOM, 5e-4)
    assert found.max_abs == pytest.approx(2e-3, rel=1e-3)
    assert found.max_rel == pytest.approx(1e-3, rel=0.05)
    assert found.median_rel == 0
    assert found.verdict == "FAIL"
    assert compare(ours, RANDOM, 2e-3).verdict == "ok"


@pytest.mark.parametrize(
    ("reference", "scale"),
    [
        (np.float32(-4.0), 4.0),  # a scalar
        (np.asarray([5.0, 5.001]), 5.001),  # too few values for a deviation
        (np.full(100, 2.0), 0.02),  # constant: what float32 can resolve
        (np.zeros(100), 1.0),
        (np.zeros(()), 1.0),
    ],
)
def test_scales_without_a_deviation(reference, scale):
    assert scale_of(np.asarray(reference)) == pytest.approx(scale)


def test_whole_numbers_and_texts_must_be_equal():
    tokens = np.asarray([[49406, 7, 0]], np.int32)
    assert compare(tokens.astype(np.int64), tokens, 0.1).ok
    wrong = compare(tokens + np.asarray([[0, 0, 1]]), tokens, 0.1)
    assert not wrong.ok
    assert wrong.max_abs == 1
    assert "1 of 3 differ" in wrong.note
    assert compare(["a", "b"], np.asarray(["a", "b"]), 0.1).ok
    assert not compare(["a", "c"], np.asarray(["a", "b"]), 0.1).ok


def test_shapes_and_what_is_not_a_number():
    assert "shape [50]" in compare(RANDOM[:, 0], RANDOM, 1.0).note
    broken = RANDOM.copy()
    broken[0, 0] = np.nan
    assert not compare(broken, RANDOM, 1.0).ok
    assert compare(broken, broken, 1e-6).ok
    assert not compare(RANDOM, broken, 1.0).ok
    broken[0, 0] = np.inf
    assert compare(broken, broken, 1e-6).ok


def test_float64_is_held_to_more():
    table = np.linspace(0.0, 1.0, 100)
    assert not compare(table + 1e-7, table, 5e-5).ok
    assert compare((table + 1e-7).astype(np.float32), table.astype(np.float32), 5e-5).ok


def test_bounds_and_expressions():
    assert compare_bound(3e-7, 1e-5).ok
    assert not compare_bound(2e-5, 1e-5).ok
    assert compare_expression(1.5, np.asarray(1.5, np.float32)).ok
    assert compare_expression([0, 7], np.asarray([0, 7])).ok
    assert not compare_expression([0, 8], np.asarray([0, 7])).ok
    assert not compare_expression(RANDOM + 1e-4, RANDOM).ok
    assert compare_expression(RANDOM + 1e-4, RANDOM, tolerance=3e-4).ok
