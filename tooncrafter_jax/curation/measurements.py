"""What is measured of clips: options declared once, and the stages that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.options import Option, with_attributes

if TYPE_CHECKING:
    from tooncrafter_jax.curation.craft_detector import CraftDetector

OFF = "off"


@dataclass(frozen=True)
class Measurements:
    """How the clips of a set are measured.

    Attributes:
      films: whether clips are of films, of which more has to be found out.
      clip_weights: a file of CLIP's weights, for agreement and aesthetics.
      quick_gelu: whether they are of one of OpenAI's own models.
    """

    films: bool = False
    motion: Annotated[
        Literal["dis", "gmflow", "off"],
        Option("optical flow by dis (OpenCV), gmflow (learned, with the extra torch-data), or off"),
    ] = "dis"
    text: Annotated[
        Literal["ppocr", "craft", "off"] | None,
        Option(
            "text in the picture by ppocr (PP-OCR), craft (the paper's, with --craft-weights), or off",
            unset="ppocr for films, else off",
        ),
    ] = None
    craft_weights: Annotated[
        Path | None,
        Option("weights of CRAFT: craft_mlt_25k.pth, or what `convert` made of it"),
    ] = None
    fingerprints: Annotated[bool, Option("look for near-duplicates")] = True
    captions: Annotated[
        Path | None,
        Option(
            ".csv, .json or .jsonl with 'caption' and 'source' (a film, and if wanted 'start' and 'stop' frames) or "
            "'id' (a clip)"
        ),
    ] = None
    blip2: Annotated[
        Path | None,
        Option(
            "a BLIP-2 model on this disk, for clips without a caption (with the extra torch-data, and transformers)",
            metavar="DIR",
        ),
    ] = None
    clip_weights: Path | None = None
    quick_gelu: bool = False
    aesthetic_head: Annotated[
        Path | None,
        Option("weights of LAION's aesthetic predictor for this CLIP; without it aesthetic scores are off"),
    ] = None

    def stages(self) -> list[Stage]:
        """The stages, the cheap ones first.

        Raises:
          UserError: options that only go together were not given together, or the weights of CRAFT do not fit.
        """
        from tooncrafter_jax.curation.captions import Blip2Captions, SidecarCaptions
        from tooncrafter_jax.curation.fingerprint import Fingerprint
        from tooncrafter_jax.curation.holds import Holds
        from tooncrafter_jax.curation.motion import DisFlow, GmFlow, Motion

        stages: list[Stage] = []
        if self.films:
            stages.append(Holds())
        if self.fingerprints:
            stages.append(Fingerprint())
        if self.motion != OFF:
            stages.append(Motion(GmFlow() if self.motion == "gmflow" else DisFlow()))
        stages += self._text_stages()
        if self.captions is not None:
            stages.append(SidecarCaptions(self.captions))
        if self.blip2 is not None:
            stages.append(Blip2Captions(self.blip2))
        return stages + self._clip_stages()

    def _text_stages(self) -> list[Stage]:
        from tooncrafter_jax.curation.text import Text

        text = self.text or ("ppocr" if self.films else OFF)
        if text == "craft":
            return [Text(self._craft_detector())]
        if self.craft_weights is not None:
            raise UserError("--craft-weights goes with --text=craft: add that, or leave the weights out")
        return [] if text == OFF else [Text()]

    def _craft_detector(self) -> CraftDetector:
        if self.craft_weights is None:
            raise UserError("--text=craft needs the weights of CRAFT: give craft_mlt_25k.pth with --craft-weights")
        from tooncrafter_jax.curation.craft_detector import CraftDetector
        from tooncrafter_jax.zoo.craft.weights import check_craft

        check_craft(self.craft_weights)
        return CraftDetector(self.craft_weights)

    def _clip_stages(self) -> list[Stage]:
        from tooncrafter_jax.curation.aesthetics import Aesthetics
        from tooncrafter_jax.curation.agreement import Agreement
        from tooncrafter_jax.curation.clip_model import ClipWeights

        if self.clip_weights is None:
            for name, given in (("aesthetic-head", self.aesthetic_head), ("quick-gelu", self.quick_gelu)):
                if given:
                    raise UserError(f"--{name} needs the weights of CLIP: give them with --clip-weights")
            return []
        clip = ClipWeights(self.clip_weights, self.quick_gelu)
        stages: list[Stage] = [Agreement(clip)]
        return stages if self.aesthetic_head is None else [*stages, Aesthetics(clip, self.aesthetic_head)]


Measurements.__doc__ = with_attributes(Measurements.__doc__, Measurements)


def notes_on(stages: Sequence[Stage], sources: Sequence[str]) -> list[str]:
    """Sentences on what the user may not expect: scores that are off, and captions of other films.

    Raises:
      UserError: the file of captions cannot be read.
    """
    from tooncrafter_jax.curation.aesthetics import Aesthetics
    from tooncrafter_jax.curation.agreement import Agreement
    from tooncrafter_jax.curation.captions import SidecarCaptions

    given = {type(stage) for stage in stages}
    notes = [stage.off for stage in (Aesthetics(), Agreement()) if type(stage) not in given]
    for stage in stages:
        if isinstance(stage, SidecarCaptions) and (mismatch := stage.mismatch(sources)):
            notes.append(mismatch)
    return notes
