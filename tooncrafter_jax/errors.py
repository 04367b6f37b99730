"""The one exception that stands for a mistake of the user's, not of the program's."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can put right; the message is one sentence: what is wrong, where, and what to do.

    Commands print the message without a stack trace and exit with code 2.
    """


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
