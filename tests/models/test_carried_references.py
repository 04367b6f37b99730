"""Details of both references reach every frame along the motion, and latents correct where they come from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_networks import values
from tests.reference import noise_params
from tooncrafter_jax.models.carried_references import CARRIED_AT_START, FrameMotion
from tooncrafter_jax.models.dual_reference_decoder import Decoder, DecoderConfig
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.nn.chunks import map_chunks

pytestmark = pytest.mark.heavy

PLAIN = DecoderConfig(
    width=8, multipliers=(1, 1), blocks_per_level=1, norm_groups=1, reference_head_dim=4, temporal=False
)
CARRYING = replace(PLAIN, carried=True, corrects_motion=True)
FRAMES, SIZE = 5, 16
ENDS = jnp.asarray([0, -1])


@cache
def network(config: DecoderConfig) -> Network[Any]:
    return Network(Decoder, config)


@cache
def compiled(config: DecoderConfig) -> Any:
    @partial(jax.jit, static_argnames="chunk")
    def run(params: Any, motion: Motion | None, chunk: int | None = None) -> Any:
        decoder = network(config).bind(params)
        references = decoder.prepare_references(hidden(), pictures())
        return decoder(latents(), references, motion, frames_per_chunk=chunk)

    return run


def latents() -> jax.Array:
    return values("latents", 2, FRAMES, SIZE // 2, SIZE // 2, 4)


def pictures() -> jax.Array:
    return jnp.tanh(values("pictures", 2, 2, SIZE, SIZE, 3))


def hidden() -> list[jax.Array]:
    return [values(f"hidden.{i}", 2, 2, side, side, 8) for i, side in enumerate((SIZE, SIZE // 2, SIZE))]


def motion(given: tuple[bool, bool] | None = None) -> Motion:
    flows = 3 * jnp.tanh(values("flows", 2, FRAMES - 2, SIZE, SIZE, 4))
    share = jax.nn.sigmoid(values("share", 2, FRAMES - 2, SIZE, SIZE, 1))
    return Motion.of_frames_between(flows, share)._replace(guided=None if given is None else jnp.asarray(given))


@cache
def params() -> dict[str, jax.Array]:
    """Of every layer, those that start at zero included."""
    return {path: 0.5 * value for path, value in noise_params(network(CARRYING)).items()}


@cache
def started() -> dict[str, jax.Array]:
    """As they are when a decoder starts to learn to carry."""
    fresh = dict(network(CARRYING).drawn(0))
    return {
        path: jnp.asarray(fresh[path]) if ".carried." in path or path.startswith("carried_pictures.") else value
        for path, value in params().items()
    }


@pytest.mark.gate
def test_new_parts_start_as_a_blend_of_the_former_decoder_and_the_carried_pictures() -> None:
    plain = compiled(PLAIN)({path: started()[path] for path in network(PLAIN).abstract_params}, None)
    both = motion().carried(jnp.concatenate([pictures()[:, :1], plain[:, 1:-1], pictures()[:, 1:]], axis=1))
    part = jax.nn.sigmoid(CARRIED_AT_START)
    wanted = (part * both + (1 - part) * plain).at[:, ENDS].set(pictures())
    np.testing.assert_allclose(compiled(CARRYING)(started(), motion()), wanted, atol=1e-4)


def test_key_frames_are_their_pictures() -> None:
    np.testing.assert_allclose(compiled(CARRYING)(params(), motion())[:, ENDS], pictures(), atol=1e-3)


@pytest.mark.parametrize("config", [CARRYING, replace(CARRYING, corrects_motion=False)])
@pytest.mark.gate
def test_without_motion_the_decoder_is_as_it_was(config: DecoderConfig) -> None:
    plain = compiled(PLAIN)({path: params()[path] for path in network(PLAIN).abstract_params}, None)
    own = {path: params()[path] for path in network(config).abstract_params}
    np.testing.assert_allclose(compiled(config)(own, None), plain, atol=1e-5)
    of_one = compiled(config)(own, motion((True, False)))
    np.testing.assert_allclose(of_one[1], plain[1], atol=1e-5)
    np.testing.assert_allclose(of_one[0], compiled(config)(own, motion())[0], atol=1e-5)
    assert jnp.abs(of_one[0] - plain[0]).max() > 0.1


@pytest.mark.parametrize("chunk", [2])
@pytest.mark.gate
def test_chunks_of_frames_give_the_same(chunk: int) -> None:
    whole = compiled(CARRYING)(params(), motion())
    np.testing.assert_allclose(compiled(CARRYING)(params(), motion(), chunk=chunk), whole, atol=1e-4)


@pytest.mark.gate
def test_latents_say_where_details_come_from() -> None:
    """The loss reaches the corrections of the motion at every level, through the positions that are sampled."""

    def loss(params: Any) -> jax.Array:
        decoder = network(CARRYING).bind(params)
        references = decoder.prepare_references(hidden(), pictures())
        return jnp.sum(jnp.square(decoder(latents(), references, motion())))

    gradients = jax.jit(jax.grad(loss))(params())
    for level in (0, 1):
        moves = gradients[f"up.{level}.carried.correction.kernel"]
        assert (jnp.abs(moves).max(axis=(0, 1, 2)) > 0).all(), moves


def test_references_that_are_to_be_carried_need_their_pictures() -> None:
    def decode(params: Any) -> Any:
        decoder = network(CARRYING).bind(params)
        return decoder(latents(), decoder.prepare_references(hidden()), motion())

    with pytest.raises(ValueError, match="prepare the references with them"):
        jax.eval_shape(decode, params())


@pytest.mark.parametrize("chunk", [None, 1, 2, 5])
def test_chunks_are_cut_from_several_arrays_and_joined_in_several(chunk: int | None) -> None:
    one, other = values("one", 2, 5, 3), values("other", 2, 5, 1)
    both = map_chunks(lambda parts: (parts[0] + parts[1], {"half": parts[1] / 2}), (one, other), 1, chunk)
    np.testing.assert_array_equal(both[0], one + other)
    np.testing.assert_array_equal(both[1]["half"], other / 2)


def test_the_last_frame_of_an_open_end_is_one_between() -> None:
    given = motion((True, True))._replace(open_ended=jnp.asarray([True, False]))
    found = FrameMotion.of(given, None)
    assert found.is_between[:, :, 0, 0, 0].tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    assert np.abs(found.logit[0, -1]).max() <= 9 < np.abs(found.logit[1, -1]).min()
    np.testing.assert_array_equal(FrameMotion.of(given._replace(open_ended=None), None).is_between[0, -1], 0)
