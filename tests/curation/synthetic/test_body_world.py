"""Without pybullet, the remedy that is named is one that works on this Python."""

import sys

import pytest

from tooncrafter_jax.curation.synthetic.body_world import import_pybullet
from tooncrafter_jax.errors import UserError


def test_without_pybullet_the_remedy_is_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybullet", None)  # what an import then finds is that there is none
    with pytest.raises(UserError, match="'pybullet'") as raised:
        import_pybullet()
    has_wheel = sys.version_info < (3, 12)
    assert ("pip install 'tooncrafter-jax[data]'" in str(raised.value)) == has_wheel
    assert ("use Python 3.11" in str(raised.value)) != has_wheel
