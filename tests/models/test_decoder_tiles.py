"""Frames that are drawn in tiles are those that are drawn whole: exactly but for statistics, and these nearly so."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_networks import values
from tests.reference import noise_params
from tooncrafter_jax.models import decoder_tiles
from tooncrafter_jax.models.configuration import tooncrafter_512
from tooncrafter_jax.models.decoder_tiles import Cut, Tiles
from tooncrafter_jax.models.dual_reference_decoder import Decoder, DecoderConfig
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.nn.logical_axes import axis_rules
from tooncrafter_jax.sampling.sampling_mesh import mesh_rules, sampling_mesh
from tooncrafter_jax.typing import Device

CONFIG = DecoderConfig(
    width=8, multipliers=(1, 2, 2), blocks_per_level=0, norm_groups=2, attention_levels=(2,), reference_head_dim=4
)
NORMALISATIONS = 9
"""Of what is drawn in tiles: four of each block, and the last."""
FRAMES, HEIGHT, WIDTH, TILE = 4, 12, 16, 16


@cache
def network() -> AnyNetwork:
    return Network(Decoder, CONFIG)


def run(tile_size: int | None, params: Any, latents: jax.Array, hidden: list[jax.Array]) -> jax.Array:
    decoder = network().bind(params)
    references = decoder.prepare_references(hidden)
    return decoder(latents, references, frames_per_chunk=3, tile_size=tile_size)


def given() -> tuple[Any, jax.Array, list[jax.Array]]:
    """Weights, and latents that are dark on one side and bright on the other, so that no two tiles are alike."""
    ramp = jnp.linspace(-2, 2, WIDTH)[:, None] + jnp.linspace(-1, 1, HEIGHT)[:, None, None]
    latents = values("latents", 1, FRAMES, HEIGHT, WIDTH, 4) + ramp
    sizes = [(4, 8), (2, 16), (1, 16), (4, 8)]
    hidden = [values(f"hidden.{i}", 1, 2, HEIGHT * k, WIDTH * k, channels) for i, (k, channels) in enumerate(sizes)]
    return noise_params(network()), latents, hidden


@cache
def decoded(tile_size: int | None, walks: int = 1) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_tiles, "WALKS", walks)
        return np.asarray(jax.jit(lambda *args: run(tile_size, *args))(*given()))


def deviation(tiled: np.ndarray) -> float:
    """Of the values, relative to their deviation from their mean."""
    whole = decoded(None)
    return float(np.sqrt(np.mean(np.square(tiled - whole))) / whole.std())


@pytest.mark.gate
def test_with_statistics_of_the_whole_tiles_are_exact() -> None:
    """One walk for each normalisation makes them those of the whole; what differs is the order of summation."""
    whole = decoded(None)
    assert whole.shape == (1, FRAMES, 4 * HEIGHT, 4 * WIDTH, 3) and whole.std() > 0.1
    np.testing.assert_allclose(decoded(TILE, NORMALISATIONS), whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.gate
def test_one_walk_comes_close_and_leaves_no_seam() -> None:
    """Of weights at random, and tiles of 16 pixels: 4 % with one walk, 33 % with each tile's own statistics."""
    own, one, two = (deviation(decoded(TILE, walks)) for walks in range(3))
    print(own, one, two)
    assert two < one < 0.06 < 0.2 < own
    error = decoded(TILE) - decoded(None)
    across = np.abs(np.diff(error, axis=3)).mean((0, 1, 2, 4))  # between neighbouring columns
    print(across[TILE - 1 :: TILE], across.mean())
    assert across[TILE - 1 :: TILE].max() < 2 * across.mean()


@pytest.mark.gate
def test_devices_that_share_the_frames_draw_the_same_tiles(devices: list[Device]) -> None:
    mesh = sampling_mesh(devices, 1, FRAMES)
    assert mesh is not None and mesh.size == len(devices)
    with axis_rules(mesh, mesh_rules(mesh)):
        spread = jax.jit(lambda *args: run(TILE, *args))(*given())
    assert len(spread.sharding.device_set) == len(devices)
    np.testing.assert_allclose(spread, decoded(TILE), atol=1e-5 * np.abs(decoded(TILE)).max())


def test_a_tile_of_the_whole_frame_is_the_same_program() -> None:
    def program(tile_size: int | None) -> str:
        shapes = jax.eval_shape(given)
        return jax.jit(lambda *args: run(tile_size, *args)).lower(*shapes).as_text()

    assert program(4 * WIDTH) == program(None)


@pytest.mark.parametrize(
    ("size", "longest", "tile", "cut"),
    [
        ((144, 256), 64, (48, 64), (60, 76)),
        ((80, 128), 64, (40, 64), (52, 76)),
        ((16, 256), 64, (16, 64), (16, 76)),
        ((16, 16), 8, (8, 8), (16, 16)),
        ((80, 128), 128, None, None),
        ((80, 128), 1, (1, 1), (13, 13)),
    ],
)
def test_tiles_divide_a_frame(
    size: tuple[int, int], longest: int, tile: tuple[int, int] | None, cut: tuple[int, int] | None
) -> None:
    tiles = Tiles.of(*size, longest, halo=6)
    assert (tiles and tiles.size, tiles and tiles.cut) == (tile, cut)
    if tiles is None:
        return
    frame = np.arange(size[0] * size[1], dtype=np.float32).reshape(1, 1, *size, 1)
    inner = []
    for corner in tiles.corners:
        one = Cut(tiles, jnp.asarray(corner))
        inner.append(np.asarray(one.inner(one(jnp.asarray(frame)))).ravel())
        if len(inner) == 8:
            break
    seen = np.concatenate(inner)
    assert len(set(seen.tolist())) == len(seen) == len(inner) * tiles.size[0] * tiles.size[1]


def test_the_published_decoder_has_six_cells_around_a_tile() -> None:
    """Of four pixels: three blocks of two convolutions and the one after doubling in each level, and the last one."""
    decoder = Network(Decoder, tooncrafter_512().decoder)
    tiles = decoder.bind(decoder.abstract_params).tiles((72, 128), 256)
    assert tiles == Tiles((144, 256), (48, 64), 6)
