"""A small set of clips, and one compiled training run that several tests look at.

Imports the package inside functions only, as tests/conftest.py does.
"""

import jax
import pytest


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Directory of a set with 12 training and 3 test clips."""
    from tests.training.small import make_clips

    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def rectify(clips):
    """The stage `rectify` on one device: (stage, mesh, compiled step, a function that makes its first state, a loader's
    opener).
    """
    from tests.training.small import NARROW_CHANGES, config
    from tooncrafter_jax.data.loader import Loader
    from tooncrafter_jax.training.sharding import make_mesh
    from tooncrafter_jax.training.stages import make_stage
    from tooncrafter_jax.training.start import Start, architecture
    from tooncrafter_jax.training.step import make_step

    narrow = {"model_changes": NARROW_CHANGES, "data": {"height": 16, "width": 16}}
    settings = config(clips, frozen_dtype="bfloat16", **narrow)
    mesh = make_mesh("data:1", jax.devices()[:1])
    stage = make_stage(settings, architecture(settings), mesh)
    return stage, mesh, make_step(stage, mesh), lambda: Start(stage).state(mesh), lambda: Loader.open(settings.data)
