"""Annotations are not checked here, as they are not where users run: the code itself must refuse what is of a wrong
type.
"""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def as_users_run(unchecked_types: None) -> None:
    """Checks no annotations."""
