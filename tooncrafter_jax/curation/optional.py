"""Packages that only curation needs: imported where they are used, and named with their extra where they are
missing.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from tooncrafter_jax.errors import missing_extra


def optional(module: str, purpose: str, extra: str = "data") -> ModuleType:
    """Imports a module of an optional package.

    Args:
      module: its import name, e.g. "cv2".
      purpose: what it is needed for, in the words of a message, e.g. "measuring motion".
      extra: the extra of this distribution that installs it.

    Raises:
      UserError: its package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise  # it is there, but broken
        raise missing_extra(package, extra, purpose) from error
