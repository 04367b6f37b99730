"""Each picture is encoded once, in batches of one size."""

from __future__ import annotations

import numpy as np
import pytest

from tooncrafter_jax.sampling.encoded_pictures import EncodedPictures


class Encoder:
    """Stands for the compiled encoder: moments are the mean colour of a picture.

    Attributes:
      calls: what it was given.
    """

    def __init__(self) -> None:
        self.calls: list[np.ndarray] = []

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        self.calls.append(pictures)
        return pictures.mean((2, 3), keepdims=True)


def pairs(*numbers: tuple[int, int]) -> np.ndarray:
    drawn = {
        one: np.random.default_rng(one).normal(size=(4, 6, 3)).astype(np.float32) for pair in numbers for one in pair
    }
    return np.stack([np.stack([drawn[first], drawn[last]]) for first, last in numbers])


@pytest.mark.parametrize(("at_a_time", "calls"), [(1, 3), (2, 2), (4, 1)])
def test_keys_of_a_chain_are_encoded_once(at_a_time: int, calls: int) -> None:
    """Four pairs have five pictures, not eight."""
    encoder, ends = Encoder(), pairs((0, 1), (1, 2), (2, 3), (3, 4))
    found = EncodedPictures().moments(ends, encoder, at_a_time)
    np.testing.assert_array_equal(found, ends.mean((2, 3), keepdims=True))
    assert [call.shape for call in encoder.calls] == [(at_a_time, 2, 4, 6, 3)] * calls


def test_what_was_encoded_before_is_known() -> None:
    known, encoder = EncodedPictures(), Encoder()
    known.moments(pairs((0, 1), (1, 2)), encoder, 1)
    found = known.moments(pairs((2, 0), (1, 3)), encoder, 1)
    np.testing.assert_array_equal(found, pairs((2, 0), (1, 3)).mean((2, 3), keepdims=True))
    assert len(encoder.calls) == 3
    np.testing.assert_array_equal(encoder.calls[-1][0], pairs((3, 3))[0])


def test_no_more_are_kept_than_asked_for_and_those_used_last() -> None:
    known, encoder = EncodedPictures(most=2), Encoder()
    known.moments(pairs((0, 1), (1, 2)), encoder, 1)
    known.moments(pairs((1, 2)), encoder, 1)
    assert len(encoder.calls) == 2
    known.moments(pairs((0, 2)), encoder, 1)
    assert len(encoder.calls) == 3


def test_pictures_of_another_size_are_others() -> None:
    known, encoder = EncodedPictures(), Encoder()
    blank = np.zeros((1, 2, 4, 6, 3), np.float32)
    known.moments(blank, encoder, 1)
    known.moments(blank.reshape(1, 2, 6, 4, 3), encoder, 1)
    assert len(encoder.calls) == 2
