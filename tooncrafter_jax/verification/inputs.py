"""What an operation is given: inputs and settings of one case, evaluated when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.verification.expressions import Resolver, Value, evaluate
from tooncrafter_jax.verification.folder import Case

Results = Mapping[str, ArrayLike | Sequence[str]]
"""What an operation gives, by name, in PyTorch layout."""
REQUIRED = object()
"""Default of a setting that must be there."""


class Inputs:
    """Inputs and settings of a case.

    Args:
      case: the case.
      resolver: looks up stored arrays and results of other cases.
    """

    def __init__(self, case: Case, resolver: Resolver) -> None:
        self._case, self._resolver = case, resolver

    def has(self, name: str) -> bool:
        """Whether the input is there and not null."""
        return self._case.inputs.get(name) is not None

    def value(self, name: str) -> Value:
        """An input as it is: an array, a list, a number or a text.

        Raises:
          UserError: if there is no such input, or it is null.
        """
        if not self.has(name):
            raise UserError(f"the case '{self._case.id}' ({self._case.operation}) lacks the input '{name}'")
        return evaluate(self._case.inputs[name], self._resolver, f"the case '{self._case.id}'")

    def array(self, name: str) -> HostArray:
        """An input as an array; floating point as float32, whole numbers as int32 (pictures stay uint8)."""
        array = np.asarray(self.value(name))
        if np.issubdtype(array.dtype, np.floating):
            return array.astype(np.float32)
        return array.astype(np.int32) if np.issubdtype(array.dtype, np.integer) and array.dtype != np.uint8 else array

    def text(self, name: str) -> str:
        """An input that is a text, or an array with one text."""
        return str(np.asarray(self.value(name)).reshape(-1)[0])

    def setting(self, name: str, default: object = REQUIRED) -> Value:
        """A setting; `default` if it is absent.

        Raises:
          UserError: if it is absent and must be there.
        """
        if name not in self._case.settings:
            if default is REQUIRED:
                raise UserError(f"the case '{self._case.id}' ({self._case.operation}) lacks the setting '{name}'")
            return default
        return self._case.settings[name]
