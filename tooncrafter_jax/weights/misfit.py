"""The one sentence for tensors that do not fit an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tooncrafter_jax.errors import UserError

MOST_NAMED = 10
"""Tensors of a kind that a message names."""


def check_fit(where: str, missing: Sequence[str], unexpected: Sequence[str], misshaped: Sequence[str]) -> None:
    """Does nothing if all three lists are empty.

    Args:
      where: the file or directory that holds the tensors.
      missing: parameters that no tensor is for.
      unexpected: tensors that no parameter is for.
      misshaped: tensors with their shape and the right one.

    Raises:
      UserError: else; it counts each kind, and names all of a few and the first of many.
    """
    groups = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
    problems = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in groups if names]
    if problems:
        raise UserError(
            f"{where} does not fit this architecture; tensors {'; '.join(problems)}: name a file of this one, "
            "or the file's architecture"
        )


def _listed(names: Sequence[str]) -> str:
    """The names, of many the first; a file from anybody can have a hundred thousand of them."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def check_shapes(found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], where: str) -> None:
    """Checks that two sets of named shapes are the same.

    Args:
      found: name -> shape of what `where` holds.
      wanted: name -> shape of what the architecture has.
      where: the file or directory, for messages.

    Raises:
      UserError: if not; see `check_fit`.
    """
    misshaped = [
        f"{name} is {by(found[name])} instead of {by(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    check_fit(where, sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys()), misshaped)


def by(shape: Sequence[int]) -> str:
    """A shape as people write it, e.g. 3x3x64x64."""
    return "x".join(map(str, shape)) or "a scalar"
