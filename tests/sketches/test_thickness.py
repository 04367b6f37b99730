"""The thickness of an extractor's lines is measured rightly, on lines of a known thickness."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sketches.line_thickness import measure_line_thickness


def along_the_edge(profile: Callable[[np.ndarray], np.ndarray]) -> Callable[[jax.Array], jax.Array]:
    """An extractor that inks the outline of the measured disc: the distance to it -> ink."""

    def extract(images: jax.Array) -> jax.Array:
        picture = np.asarray(images)[0, ..., 0].astype(np.float64)
        light, dark = picture.max(), picture.min()
        area = ((light - picture) / (light - dark)).sum()  # found from the picture alone
        rows, columns = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in picture.shape), indexing="ij")
        return jnp.asarray(1 - profile(np.hypot(rows, columns) - np.sqrt(area / np.pi)), jnp.float32)[None, ..., None]

    return extract


@pytest.mark.parametrize("thickness", [2.0, 3.5, 8.0])
@pytest.mark.parametrize("darkest", [1.0, 0.3])
def test_lines_of_even_ink(thickness: float, darkest: float) -> None:
    extract = along_the_edge(lambda d: darkest * np.clip(thickness / 2 - np.abs(d) + 0.5, 0, 1))
    assert abs(measure_line_thickness(extract) - thickness) < 0.35
    assert abs(measure_line_thickness(extract, 96, 128) - thickness) < 0.35


def test_lines_that_fade_count_to_half_their_ink() -> None:
    extract = along_the_edge(lambda d: np.exp(-(d**2) / (2 * 2.0**2)))
    assert abs(measure_line_thickness(extract) - 2.355 * 2.0) < 0.35


def test_a_faint_veil_is_no_line() -> None:
    veiled = along_the_edge(lambda d: 0.2 + 0.8 * np.clip(2 - np.abs(d), 0, 1))
    assert abs(measure_line_thickness(veiled) - 3.25) < 0.35  # 0.2 + 0.8 * (2 - 1.625) is half of 1


@pytest.mark.parametrize("ink", [0.0, 0.01])
def test_without_lines_there_is_no_thickness(ink: float) -> None:
    assert np.isnan(measure_line_thickness(along_the_edge(lambda d: np.full_like(d, ink))))
