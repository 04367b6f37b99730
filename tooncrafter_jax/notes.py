"""Notes: what was decided about an input that could be meant in two ways, or what of it is lost, each on one line.

Use
---
Where something is decided, call `note` with one sentence in the style of an error: what, where, and how to have it
otherwise. Name the file, or "the first picture", so that two pictures never share a sentence.

    note(f"'{path}' has the profile Display P3: converted to sRGB")

Whoever listens decides where it goes:

- A command: `cli.common.run` prints "note: ..." on stderr, each sentence once a run, on the main process alone.
- The Python API: a `Note`, which is a `UserWarning`; `warnings.filterwarnings("ignore", category=Note)` silences it,
  and "error" makes it an exception.
- A program that wants them itself: `with heard_by(listener)`, or `with collected() as found`.

What was found where nothing is in doubt, which a person at a terminal still wants to see, is a `remark`: a listener
hears it as it hears a note, and without one it is dropped.

Code that looks at one input several times (a clip is checked, then made) wraps the whole in `with once():`, and the
same sentence passes but once. Nothing here needs JAX.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from tooncrafter_jax.errors import printable

Listener = Callable[[str], None]
"""Is given a sentence without line breaks and without a full stop."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Note(UserWarning):
    """Something that was decided about an input, or is lost of it; the message is one sentence."""


def note(message: str) -> None:
    """Says one sentence to whoever listens; without a listener it is a warning of the category `Note`."""
    _say(message, in_doubt=True)


def remark(message: str) -> None:
    """Says one sentence to the listener; without one it is dropped."""
    _say(message, in_doubt=False)


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Inside, notes and remarks of this thread go to `listener` alone."""
    listening, said = _listener.set(listener), _said.set(None)
    try:
        yield
    finally:
        _said.reset(said)
        _listener.reset(listening)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Inside, the same sentence is said only the first time; within another `once`, only if that has not said it."""
    token = _said.set(set() if _said.get() is None else _said.get())
    try:
        yield
    finally:
        _said.reset(token)


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Inside, notes and remarks are kept in the list that this gives, in order and each once, and go no further."""
    found: list[str] = []
    with heard_by(found.append), once():
        yield found


def _say(message: str, in_doubt: bool) -> None:
    sentence = printable(" ".join(message.splitlines()))
    listener, said = _listener.get(), _said.get()
    if said is not None:
        if sentence in said:
            return
        said.add(sentence)
    if listener is not None:
        listener(sentence)
    elif in_doubt:
        warnings.warn(sentence, Note, stacklevel=_callers_level())


def _callers_level() -> int:
    """How far up the stack, from `_say`, the first caller outside this package stands: the warning points there."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 (as `warnings` does it)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
