"""Motion guidance equals the published code's, from the resized flows to whole samples."""

from __future__ import annotations

import pytest

from tests.reference import GOLDEN
from tooncrafter_jax.verification.folder import Folder
from tooncrafter_jax.verification.run import verify

FOLDER = GOLDEN / "motion_guidance"


@pytest.mark.gate
def test_what_is_carried_along_flows() -> None:
    """The reference places its grid in [-1, 1], which moves a pixel by 1e-5; 9e-6 of a deviation was seen."""
    rows = verify(Folder(FOLDER), only="motion_warp.npz*")
    assert len(rows) == 18
    assert max(row.max_rel or 0.0 for row in rows) < 2e-5


@pytest.mark.slow
def test_every_stored_number() -> None:
    """Tolerances: see `operations`."""
    rows = verify(Folder(FOLDER))
    assert len(rows) == 55
    wrong = [row for row in rows if row.verdict == "FAIL"]
    assert not wrong, "\n".join(f"{row.file}:{row.key} {row.max_rel} > {row.tolerance} {row.note}" for row in wrong)
