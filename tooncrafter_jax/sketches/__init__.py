"""Sketches for training pairs: drawing them from frames, choosing which frames they guide, and handing them to the
encoder.
"""

from tooncrafter_jax.sketches.extractors import (
    EXTRACTORS,
    Anime2SketchExtractor,
    HedExtractor,
    NetworkExtractor,
    Side,
    Sketches,
    SketchExtractor,
    load_extractor,
)
from tooncrafter_jax.sketches.hints import hints_of_sketches
from tooncrafter_jax.sketches.selection import (
    BISECTION_DEPTHS,
    BISECTION_SHARE,
    bisection_frames,
    choose_sketched_frames,
    random_frames,
)

__all__ = [
    "BISECTION_DEPTHS",
    "BISECTION_SHARE",
    "EXTRACTORS",
    "Anime2SketchExtractor",
    "HedExtractor",
    "NetworkExtractor",
    "Side",
    "SketchExtractor",
    "Sketches",
    "bisection_frames",
    "choose_sketched_frames",
    "hints_of_sketches",
    "load_extractor",
    "random_frames",
]
