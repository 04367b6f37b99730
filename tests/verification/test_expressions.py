"""The expression language of manifests."""

from __future__ import annotations

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.verification.expressions import evaluate, references, take
from tooncrafter_jax.weights.rule import unit_noise


class Stored:
    def array(self, name):
        return {"a.npz:grid": np.arange(24).reshape(2, 3, 4), "a.npz:picture": np.full((2, 4, 3), 255, np.uint8)}[name]

    def json(self, file):
        return ["", "é"]

    def result(self, case, name):
        return np.asarray([case, name])


def value(expression):
    return evaluate(expression, Stored(), "the case 'x'")


def test_sources():
    assert value(None) is None
    noise = value({"noise": "n", "shape": [2, 3], "scale": 0.5})
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise, np.float32(0.5) * unit_noise("n", (2, 3)))
    assert value({"value": [1, 2]}) == [1, 2]
    np.testing.assert_array_equal(value({"zeros": [2, 1]}), np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(value({"case": "c", "result": "r"}), ["c", "r"])
    assert value({"list": [{"value": 1}, {"list": [{"value": 2}]}]}) == [1, [2]]


def test_slices_apply_axis_by_axis():
    grid = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(take(grid, ["1:", [2, 0], "::2"]), grid[1:][:, [2, 0]][:, :, ::2])
    np.testing.assert_array_equal(take(grid, [1, [0, 2], 3]), grid[1, [0, 2], 3])
    np.testing.assert_array_equal(take(grid, [":", -1]), grid[:, -1])
    np.testing.assert_array_equal(take(grid, []), grid)
    assert take(np.float32(2), []).shape == ()


@pytest.mark.parametrize("items", [[5], [":", ":", ":", ":"]])
def test_slices_beyond_the_array(items):
    with pytest.raises(IndexError):
        take(np.zeros((2, 3, 4)), items)


def test_steps():
    grid = {"array": "a.npz:grid"}
    np.testing.assert_array_equal(value({**grid, "then": [{"clip": [2, 20]}, {"slice": [0, 0]}]}), [2, 2, 2, 3])
    picture = value({"array": "a.npz:picture", "then": [{"image": True}]})
    assert picture.shape == (1, 3, 2, 4)
    np.testing.assert_array_equal(picture, np.ones((1, 3, 2, 4), np.float32))
    hint = value({"array": "a.npz:picture", "then": [{"hint": True}, {"keep_frames": [1]}]})
    assert hint.shape == (2, 1, 4, 3)
    assert hint[0].max() == 0 and hint[1].min() == 1
    nearest = value({**grid, "then": [{"nearest": [2, 6]}, {"slice": [0]}]})
    np.testing.assert_array_equal(nearest, np.arange(12).reshape(3, 4)[np.ix_([0, 1], [0, 0, 1, 2, 2, 3])])
    assert value({**grid, "then": [{"tile": [1, 1, 2]}]}).shape == (2, 3, 8)
    joined = value({"list": [grid, grid], "then": [{"concatenate": 1}]})
    assert joined.shape == (2, 6, 4)
    np.testing.assert_array_equal(value({"json": "p.json", "then": [{"utf8_hex": True}]}), ["", "c3a9"])
    scaled = value({"noise": "n", "shape": [4], "then": [{"multiply": 0.18215}, {"divide": 0.18215}]})
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, unit_noise("n", (4,)), rtol=2e-7)


def test_references_name_what_is_needed():
    nested = {"list": [{"array": "a.npz:x"}, {"case": "c", "result": "r"}, {"json": "p.json"}, None, {"value": 1}]}
    assert list(references(nested, "here")) == [("array", "a.npz:x"), ("case", "c"), ("json", "p.json")]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"nose": "n"}, "not one of noise"),
        ({"value": 1, "zeros": [1]}, "not one of noise"),
        ("text", "not one of noise"),
        ({"value": 1, "then": [{"sharpen": 1}]}, "unknown step"),
    ],
)
def test_malformed(expression, message):
    with pytest.raises(UserError, match=message):
        list(references(expression, "here"))


def test_a_step_that_does_not_fit():
    with pytest.raises(UserError, match="cannot be made: IndexError"):
        value({"array": "a.npz:grid", "then": [{"slice": [9]}]})
