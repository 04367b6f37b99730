"""Prompts to token ids: the byte-pair encoding of CLIP (spec sections 3.3 and 13).

The vocabulary needs no table of strings, since an id says where its symbol comes from:

| ids            | symbol                                                            |
|----------------|-------------------------------------------------------------------|
| 0 to 255       | one byte, printable bytes first                                   |
| 256 to 511     | the same byte as the last one of a word                           |
| 512 to 49405   | two symbols merged; a lower id is merged before a higher one      |
| 49406, 49407   | start and end of the text                                         |
"""

from __future__ import annotations

import gzip
import heapq
import html
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import ftfy
import numpy as np
import regex
from jaxtyping import Int32

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.clip_text import CONTEXT_LENGTH

START_ID = 49406
END_ID = 49407
PADDING_ID = 0
"""Follows the end token; also the id of the byte "!"."""

_VOCABULARY = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
_FIRST_MERGE = 512
_MERGES = START_ID - _FIRST_MERGE  # the file lists more than CLIP uses
_SPECIAL_IDS = {"<start_of_text>": START_ID, "<end_of_text>": END_ID}
_WORDS = regex.compile(
    r"<start_of_text>|<end_of_text>|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)
_SPACES = regex.compile(r"\s+")


class Tokenizer:
    """The CLIP tokenizer; building one reads the vocabulary (about 0.2 s), so share `tokenizer()`.

    Args:
      vocabulary: gzipped text: a line of remarks, then one merge per line, its two symbols separated by a space.

    Raises:
      UserError: if the vocabulary is missing or damaged.
    """

    def __init__(self, vocabulary: Path = _VOCABULARY) -> None:
        self._byte_ids, symbols = _byte_symbols()
        self._merges = _read_merges(vocabulary, symbols)
        self._halves: dict[int, tuple[int, int]] = {}

    def __call__(self, prompts: Sequence[str]) -> Int32[np.ndarray, "B 77"]:
        """Token ids of each prompt: start, text, end, padding with id 0.

        A prompt of more than 75 text tokens is cut, and its last id is the end token (spec section 3.3). The literal
        texts `<start_of_text>` and `<end_of_text>` stand for the special ids.

        Args:
          prompts: any text; case, runs of white space and broken encodings do not matter.

        Raises:
          TypeError: if `prompts` is a single string.
        """
        if isinstance(prompts, str):
            raise TypeError("the tokenizer takes a list of prompts, not a single string")
        ids = np.full((len(prompts), CONTEXT_LENGTH), PADDING_ID, np.int32)
        for row, prompt in zip(ids, prompts, strict=True):
            # lazily: the words that would be cut are never encoded
            text = list(islice(self._text_ids(prompt), CONTEXT_LENGTH - 2))
            row[: len(text) + 2] = [START_ID, *text, END_ID]
        return ids

    def lost(self, prompt: str) -> str:
        """The end of a prompt that is cut off, cleaned as tokens are made from it; empty if all of it counts."""
        text, count = clean(prompt), 0
        for match in _WORDS.finditer(text):
            word = match.group()
            ids = [_SPECIAL_IDS[word]] if word in _SPECIAL_IDS else self._merge(word.encode())
            if count + len(ids) > CONTEXT_LENGTH - 2:
                kept = sum(self._lengths(symbol) for symbol in ids[: CONTEXT_LENGTH - 2 - count])
                return word.encode()[kept:].decode(errors="replace") + text[match.end() :]
            count += len(ids)
        return ""

    def _lengths(self, symbol: int) -> int:
        """How many bytes a symbol stands for."""
        if symbol < _FIRST_MERGE:
            return 1
        if not self._halves:
            self._halves = {merged: pair for pair, merged in self._merges.items()}
        first, second = self._halves[symbol]
        return self._lengths(first) + self._lengths(second)

    def _text_ids(self, prompt: str) -> Iterator[int]:
        """The ids of the text alone, word by word."""
        for match in _WORDS.finditer(clean(prompt)):
            word = match.group()
            if word in _SPECIAL_IDS:
                yield _SPECIAL_IDS[word]
            else:
                yield from self._merge(word.encode())

    def _merge(self, word: bytes) -> list[int]:
        """Joins neighbouring symbols, always the pair of lowest rank and of these the leftmost, until no pair is known.

        Uses a heap of candidate pairs over a doubly linked list, O(n log n) in the length. An id is its merge's rank.
        """
        ids = [self._byte_ids[byte] for byte in word]
        ids[-1] += 256
        left = list(range(-1, len(ids) - 1))
        right = [*range(1, len(ids)), -1]
        heap: list[tuple[int, int]] = []

        def consider(position: int) -> None:
            """Adds the pair that begins at `position`, if it is one."""
            if position >= 0 and right[position] >= 0:
                merged = self._merges.get((ids[position], ids[right[position]]))
                if merged is not None:
                    heapq.heappush(heap, (merged, position))

        for position in range(len(ids)):
            consider(position)
        while heap:
            merged, position = heapq.heappop(heap)
            other = right[position]
            if other < 0 or self._merges.get((ids[position], ids[other])) != merged:
                continue  # an earlier merge has taken one of the two
            ids[position], ids[other] = merged, -1
            right[position], right[other] = right[other], -1
            if right[position] >= 0:
                left[right[position]] = position
            consider(left[position])
            consider(position)
        return [symbol for symbol in ids if symbol >= 0]


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer of the published model, read at the first call."""
    return Tokenizer()


def clean(prompt: str) -> str:
    """Repairs wrong decoding, resolves HTML entities twice, reduces white space to single spaces, and lowers case."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return _SPACES.sub(" ", text).strip().lower()


def _byte_symbols() -> tuple[list[int], dict[str, int]]:
    """The id of each byte, and the ids of the characters that stand for bytes in the vocabulary file.

    Printable Latin-1 characters stand for themselves and have the lower ids; the other bytes are written as the
    characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    characters = [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(len(others))]
    byte_ids = [0] * 256
    for number, byte in enumerate(printable + others):
        byte_ids[byte] = number
    symbols = {character: number for number, character in enumerate(characters)}
    symbols |= {f"{character}</w>": 256 + number for number, character in enumerate(characters)}
    return byte_ids, symbols


def _read_merges(path: Path, symbols: dict[str, int]) -> dict[tuple[int, int], int]:
    """The id that each pair of ids becomes; `symbols` gains the merged symbols."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            pairs = [line.split() for line in islice(lines, 1, 1 + _MERGES)]
        merges: dict[tuple[int, int], int] = {}
        for number, (first, second) in enumerate(pairs, _FIRST_MERGE):
            merges[symbols[first], symbols[second]] = number
            symbols[first + second] = number
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(_broken(path)) from error
    if len(merges) != _MERGES:
        raise UserError(_broken(path))
    return merges


def _broken(path: Path) -> str:
    return f"the tokenizer's vocabulary {path} is missing or damaged: install tooncrafter-jax again"
