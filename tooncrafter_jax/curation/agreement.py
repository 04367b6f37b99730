"""Whether a caption says what a clip shows: the cosine of their CLIP vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tooncrafter_jax.curation.clip_model import ClipWeights, load_clip
from tooncrafter_jax.curation.frames_of_clips import three_frames
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.typing import JsonObject

OFF = "no CLIP weights were given, so captions are not compared with clips"


@dataclass(frozen=True)
class Agreement:
    """Measures the score "agreement": the mean cosine between caption and first, middle and last frame (spec section
    9).

    A clip without a caption keeps the score that it has.

    Attributes:
      clip: the weights of CLIP, e.g. a published ToonCrafter checkpoint. Without them all clips keep the score that
        they have.
    """

    clip: ClipWeights | None = None
    name = "agreement"

    @property
    def off(self) -> str:
        """Why it measures nothing, in a sentence, or ""."""
        return OFF if self.clip is None else ""

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its score.

        Raises:
          UserError: the file cannot be read, or lacks a tower.
        """
        if self.clip is None or not clip.caption:
            return clip
        model = load_clip(self.clip)
        cosines = model.of_pictures(clip.decode(three_frames(len(clip)))) @ model.of_texts([clip.caption])[0]
        return replace(clip, scores={**clip.scores, "agreement": float(cosines.mean())})

    def settings(self) -> JsonObject:
        """The weights, or that there are none.

        Raises:
          UserError: the file cannot be read.
        """
        return {"off": OFF} if self.clip is None else dict(self.clip.settings())
