"""Likeness in the space of CLIP: of frames to the true frames, and to the prompt (spec section 10)."""

from __future__ import annotations

from typing import Literal

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.curation.clip_model import ClipModel, ClipWeights, load_clip
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.evaluation.metrics.shared_features import SharedFeatures


class ClipFeatures:
    """Unit vectors of frames and prompts; give one object to both metrics and every frame is encoded once.

    Args:
      model: both towers of CLIP.
    """

    def __init__(self, model: ClipModel) -> None:
        self._model = model
        self.frames = SharedFeatures(self._of_clips)

    @classmethod
    def load(cls, weights: ClipWeights | None) -> ClipFeatures:
        """With the user's weights, which no package carries. ViT-B/32 of OpenAI is the usual one.

        Raises:
          UserError: there are none, or the file cannot be read.
        """
        if weights is None:
            raise UserError(
                "CLIP similarity needs weights of CLIP, which this package does not carry: name a file of OpenCLIP's "
                "or OpenAI's weights or a published ToonCrafter checkpoint, or leave clip_image and clip_text out"
            )
        return cls(load_clip(weights))

    def of_prompts(self, prompts: tuple[str, ...]) -> Float32[np.ndarray, "B D"]:
        """Unit vectors of texts."""
        with jax.default_matmul_precision("highest"):
            return self._model.of_texts(prompts)

    def _of_clips(self, clips: UInt8[np.ndarray, "B T H W 3"]) -> Float32[np.ndarray, "B T D"]:
        with jax.default_matmul_precision("highest"):
            return np.stack([self._model.of_pictures(frames) for frames in clips])


class _Similarity(FrameMetric):
    better: Literal["lower", "higher"] = "higher"

    def __init__(self, features: ClipFeatures) -> None:
        self._features = features


class ClipImageSimilarity(_Similarity):
    """The cosine between the CLIP vectors of a frame and the true frame of the same index.

    Args:
      features: CLIP; the same object may serve `ClipTextSimilarity`.
    """

    name = "clip_image"
    title = "CLIP image"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The cosine of each frame, in [-1, 1].

        Raises:
          UserError: the weights lack the image tower.
        """
        frames = self._features.frames
        return (frames.of_videos(batch) * frames.of_truth(batch)).sum(-1)


class ClipTextSimilarity(_Similarity):
    """The cosine between the CLIP vectors of a frame and of its clip's prompt; a clip with an empty prompt is left out.

    Args:
      features: CLIP; the same object may serve `ClipImageSimilarity`.
    """

    name = "clip_text"
    title = "CLIP text"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The cosine of each frame, in [-1, 1]; nan for clips without a prompt.

        Raises:
          UserError: the weights lack a tower.
        """
        texts = self._features.of_prompts(batch.prompts)
        cosines = np.einsum("btd,bd->bt", self._features.frames.of_videos(batch), texts)
        return np.where(
            np.array([bool(prompt.strip()) for prompt in batch.prompts])[:, None], cosines, np.float32(np.nan)
        )
