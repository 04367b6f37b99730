"""What the compiler is told: only on CPUs, only what it knows, and products stay products."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.runtime import compiler_options as module
from tooncrafter_jax.runtime.compiler_options import compiler_options


@pytest.fixture(autouse=True)
def _asked_anew():
    module.are_known.cache_clear()
    yield
    module.are_known.cache_clear()


@pytest.mark.parametrize("platform", ["tpu", "gpu", "cuda"])
def test_other_devices_have_none(platform):
    assert compiler_options(SimpleNamespace(platform=platform)) == {}


def test_other_processors_have_none(monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "arm64")
    assert compiler_options(jax.devices("cpu")[0]) == {}


def test_a_compiler_that_does_not_know_them_is_not_told(monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module, "OWN_PRODUCTS", {"xla_cpu_no_such_option": "1"})
    assert compiler_options(jax.devices("cpu")[0]) == {}


def test_products_are_compiled_without_the_library(monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "AMD64")
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.standard_normal(shape, np.float32)) for shape in ((512, 64), (64, 32)))
    program = jax.jit(jnp.dot, compiler_options=compiler_options(jax.devices("cpu")[0])).lower(x, kernel).compile()
    assert "ynn" not in (program.as_text() or "ynn")
    np.testing.assert_allclose(program(x, kernel), np.asarray(x) @ np.asarray(kernel), atol=1e-4)
