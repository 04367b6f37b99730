"""What is printed of names that come from elsewhere."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tooncrafter_jax.errors import UserError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\x9b31m", "a\\x9b31m"),
        ("two\nlines\r\tand a tab", "two\\nlines\\r\\tand a tab"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("a\U000e0041", "a\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["é ü 猫\u3000犬", "\N{ZERO WIDTH JOINER}".join("👩🎨"), "C:\\drawings\\a.png", "نقاشی"]
)
def test_words_of_any_script_stay(text: str):
    assert printable(text) == text


@given(st.text(), st.none() | st.integers(0, 20))
def test_the_result_is_one_safe_line_and_printing_it_twice_changes_nothing(text: str, limit: int | None):
    shown = printable(text, limit)
    assert len(shown.splitlines()) <= 1
    assert all(unicodedata.category(c) not in ("Cc", "Cs") for c in shown)
    assert printable(shown, limit) == shown
    assert limit is None or len(shown) <= max(limit, 3)
    shown.encode()


def test_a_user_error_is_one_safe_line():
    assert str(UserError("'a\x1b]0;owned\x07' is\nno picture")) == "'a\\x1b]0;owned\\x07' is no picture"


def test_a_long_name_is_shortened():
    assert printable("x" * 10_000_000, 10) == "xxxxxxx..."
    assert printable("x" * 10, 10) == "x" * 10
