"""The tokenizer gives exactly the published ids, on any text."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.tokenizer import CONTEXT_LENGTH, END_ID, START_ID, Tokenizer, clean, tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny"
PROMPTS = json.loads((GOLDEN / "prompts.json").read_text())


def ids(prompt: str) -> list[int]:
    """The ids of a prompt up to the end token."""
    row = tokenizer()([prompt])[0].tolist()
    return row[: row.index(END_ID) + 1]


def test_equals_the_reference() -> None:
    with np.load(GOLDEN / "text_encoder.npz") as arrays:
        reference = arrays["tokens"]
    tokens = tokenizer()(PROMPTS)
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, reference)


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_a_prompt_alone_has_the_ids_it_has_in_a_batch(number: int) -> None:
    np.testing.assert_array_equal(tokenizer()([PROMPTS[number]])[0], tokenizer()(PROMPTS)[number])


def test_start_text_end_then_padding_with_zeros() -> None:
    row = tokenizer()(["walking man"])[0]
    assert row[:4].tolist() == [START_ID, 3941, 786, END_ID]
    assert not row[4:].any()
    assert tokenizer()([]).shape == (0, CONTEXT_LENGTH)


@pytest.mark.parametrize("words", [74, 75, 76, 500])
def test_a_long_prompt_is_cut_and_still_ends(words: int) -> None:
    row = tokenizer()(["man " * words])[0].tolist()
    kept = min(words, CONTEXT_LENGTH - 2)
    assert row == [START_ID, *[786] * kept, END_ID, *[0] * (CONTEXT_LENGTH - 2 - kept)]


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("Walking   MAN", "walking man"),
        (" \t walking\n\nman\u3000", "walking man"),
        ("tom &amp;amp; jerry", "tom & jerry"),
        ("<3 tom &amp;amp;amp; jerry", "<3 tom &amp; jerry"),
        ("caf\u00c3\u00a9", "caf\u00e9"),
        ("\ufb01ne \uff21", "fine a"),
    ],
)
def test_cleaning(prompt: str, same: str) -> None:
    assert clean(prompt) == same


def test_literal_special_tokens_become_their_ids() -> None:
    assert ids("a <start_of_text> b") == [START_ID, *ids("a")[1:-1], START_ID, *ids("b")[1:-1], END_ID]
    assert tokenizer()(["<END_OF_TEXT>"])[0, :4].tolist() == [START_ID, END_ID, END_ID, 0]
    assert START_ID not in ids("!<start_of_text>")[1:]  # a run of punctuation comes first


def test_a_very_long_prompt_is_quick() -> None:
    random = np.random.default_rng(0)
    letters = "".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), 10_000))
    prompts = [
        letters,
        "a" * 10_000,
        "!" * 10_000,
        "\U0001f431" * 10_000,
        "word " * 2_000,
        "&amp;" * 2_000,
        " " * 10_000,
    ]
    tokenizer()([""])
    start = time.process_time()
    tokens = tokenizer()(prompts)
    assert time.process_time() - start < 5.0
    assert (tokens[:6, -1] == END_ID).all()
    assert tokens[6, :3].tolist() == [START_ID, END_ID, 0]


@pytest.mark.parametrize("prompt", ["\ud800", "\x00\x1b[31m", "&#xD800;", "\u0130\u017f", "\u200d\ufe0f", "\u202eabc"])
def test_odd_characters_are_no_error(prompt: str) -> None:
    row = tokenizer()([prompt])[0]
    assert row[0] == START_ID
    assert (row >= 0).all() and (row <= END_ID).all()
    assert END_ID in row


def test_a_single_string_is_refused() -> None:
    with pytest.raises(TypeError, match="list of prompts"):
        tokenizer()("walking man")


def test_the_vocabulary_is_read_once() -> None:
    assert tokenizer() is tokenizer()


@pytest.mark.parametrize(
    "content",
    [None, b"not gzip", gzip.compress(b"remark\nq w\n"), gzip.compress(b"\nqq ww\n" * 9)],
    ids="missing text short strange".split(),  # compressed bytes hold the time, which would be another in each worker
)
def test_a_damaged_vocabulary_is_a_users_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "vocabulary.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="missing or damaged"):
        Tokenizer(path)
