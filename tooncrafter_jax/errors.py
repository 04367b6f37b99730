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
