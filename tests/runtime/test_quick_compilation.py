"""Quick compilation, by whichever name this release of JAX has for it."""

from typing import Any

import jax
import numpy as np
import pytest

from tooncrafter_jax.runtime.quick_compilation import quick_compilation, quick_options


def test_a_program_compiles_with_the_options_and_computes_the_same():
    x = np.arange(16.0, dtype=np.float32).reshape(4, 4)
    options: Any = quick_options()
    compiled = jax.jit(lambda x: x @ x).lower(x).compile(compiler_options=options)
    np.testing.assert_allclose(compiled(x), x @ x, rtol=1e-6)  # another order of the sums


def test_the_setting_ends_with_its_context():
    ((option, value),) = quick_options().items()

    def now():
        return getattr(jax.config, f"jax_{option}")

    before = now()

    def interrupted():
        with quick_compilation():
            assert now() == value != before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert now() == before
