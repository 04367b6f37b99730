"""A batch is divided between devices and measured the same."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.evaluation.metrics.devices import OverLocalDevices


@pytest.mark.parametrize(("clips", "devices"), [(1, 1), (3, 1), (4, 4), (6, 2), (8, 8), (16, 8)])
def test_as_many_devices_as_divide_the_batch(clips: int, devices: int) -> None:
    shares = []

    def step(params: Any, a: jax.Array, b: jax.Array) -> jax.Array:
        shares.append(a.shape[0])
        return (params["factor"] * a * b).sum((1, 2))

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, clips, 5, 3)).astype(np.float32)
    measure = OverLocalDevices(step, {"factor": jnp.float32(2.0)})
    np.testing.assert_allclose(measure(a, b), (2 * a * b).sum((1, 2)), rtol=1e-5, atol=1e-5)
    assert shares == [clips // devices]
    measure(b, a)
    assert len(shares) == 1  # compiled once for a shape


def test_what_is_no_longer_used_is_let_go() -> None:
    """A network of a gigabyte does not stay in memory when its metric is gone."""
    measure = OverLocalDevices(lambda params, clips: clips * params, np.float32(2))
    measure(np.ones((1, 2), np.float32))
    gone = weakref.ref(measure)
    del measure
    gc.collect()
    assert gone() is None
