"""Pictures moved along flows: the gradients that are written out are those of the mathematics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.nn import warping
from tooncrafter_jax.nn.warping import warped


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_gradients_are_those_of_the_forward_pass(channels: int) -> None:
    """Within a picture, at its border and beyond it, of the picture and of the flow."""
    keys = jax.random.split(jax.random.key(0), 3)
    image = jax.random.normal(keys[0], (2, 6, 7, channels))
    flow = 4 * jax.random.normal(keys[1], (2, 6, 7, 2)).at[0, :2].set(0.0)
    weights = jax.random.normal(keys[2], image.shape)

    def total(image: jax.Array, flow: jax.Array) -> jax.Array:
        return jnp.sum(weights * warped(image, flow))

    found = jax.grad(total, argnums=(0, 1))(image, flow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warping, "_sampled", warping._blended)  # noqa: SLF001 - what is differentiated by JAX
        expected = jax.grad(total, argnums=(0, 1))(image, flow)
    for one, other in zip(found, expected, strict=True):
        assert float(jnp.abs(other).max()) > 0.1
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_flow_that_is_no_number_gives_none() -> None:
    """As large as any index may be that it makes, nothing else is read."""
    flow = jnp.zeros((1, 4, 4, 2)).at[0, 1, 2].set(jnp.nan)
    moved = warped(jnp.ones((1, 4, 4, 3)), flow)
    assert np.isnan(moved[0, 1, 2]).all() and np.isfinite(np.delete(moved.reshape(16, 3), 6, axis=0)).all()
