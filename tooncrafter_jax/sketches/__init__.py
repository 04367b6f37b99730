"""Sketches for training pairs: drawing them from frames, and choosing which frames they guide."""

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
    "load_extractor",
    "random_frames",
]
