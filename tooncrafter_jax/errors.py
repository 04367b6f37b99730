"""The one exception that stands for a mistake of the user's, not of the program's."""

from __future__ import annotations

import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that are not shown as they are: control and format characters, surrogates, line separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need, and that turn nothing around."""
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: object, limit: int | None = None) -> str:
    """A foreign string (a file's or a tensor's name, a prompt, another program's words) as one line that is safe to
    print.

    Terminals obey control characters, and some format characters turn the order of the text around: both become visible
    escapes, as do line breaks and bytes that are no text. Everything else, of any script, stays as it is.

    Args:
      text: is brought to a string by `str`.
      limit: characters that are kept; what is longer ends in "...". None: all.
    """
    escaped = []
    for character in str(text)[: None if limit is None else limit + 1]:
        if unicodedata.category(character) not in _UNSAFE or character in _JOINERS:
            escaped.append(character)
        else:
            code = ord(character)
            plain = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            escaped.append(_SHORT_ESCAPES.get(character, plain))
    shown = "".join(escaped)
    return shown if limit is None or len(shown) <= limit else shown[: max(0, limit - 3)] + "..."


class UserError(Exception):
    """Something that the user can put right; the message is one sentence: what is wrong, where, and what to do.

    Commands print the message without a stack trace and exit with code 2. It is one line that is safe to print
    (`printable`), whatever the names in it hold.
    """

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """The error for an optional dependency that is not installed.

    Args:
      package: the import name that was not found.
      extra: the extra of this distribution that installs it.
      purpose: what it is needed for, e.g. "reading .ckpt files".
    """
    return UserError(
        f"{purpose} needs the package '{package}', which is not installed: pip install 'tooncrafter-jax[{extra}]'"
    )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that the host's or a device's memory is full."""
    while error is not None:
        if isinstance(error, MemoryError) or any(
            word in str(error) for word in ("RESOURCE_EXHAUSTED", "out of memory")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def out_of_memory(purpose: str, remedy: str) -> UserError:
    """The error for a memory that is full.

    Args:
      purpose: what the memory does not suffice for, e.g. "to sample".
      remedy: what would need less, e.g. "lower the batch size".
    """
    return UserError(f"the device has too little memory {purpose}: {remedy}, or use a device with more memory")
