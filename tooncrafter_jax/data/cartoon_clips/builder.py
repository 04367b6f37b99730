"""How a clip is laid out in a shard, and the builder that opens shards."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_parser, example_serializer

from tooncrafter_jax.data.records import SCORES, Clip
from tooncrafter_jax.errors import UserError

DESCRIPTION = "Clips of cartoons: encoded frames, frame rate, caption, source, and every score of their curation."


def features() -> tfds.features.FeaturesDict:
    """The layout of a clip: the fields of `Clip`."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "source": tfds.features.Text(),
            "frames": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")),
            "height": np.int32,
            "width": np.int32,
            "fps": np.float32,
            "effective_fps": np.float32,
            "start_frame": np.int64,
            "caption": tfds.features.Text(),
            "caption_from": tfds.features.Text(),
            "scores": {name: tfds.features.Scalar(np.float32, doc=unit) for name, unit in SCORES.items()},
            "fingerprint": tfds.features.Text(),
            "thresholds": tfds.features.Text(),
        }
    )


def serialize_clip(clip: Clip) -> bytes:
    """A clip as a shard holds it: a `tf.train.Example` with the frames as they are; the same bytes in every process."""
    example: dict[str, object] = {name: getattr(clip, name) for name in _features()}
    example |= {"frames": [io.BytesIO(frame) for frame in clip.frames], "scores": dict(clip.scores)}
    encoded: Any = _serializer().get_tf_example(_features().encode_example(example))
    return encoded.SerializeToString(deterministic=True)  # else the order of fields is that of a process's hashes


def parse_clip(data: bytes) -> Clip:
    """The clip of what `serialize_clip` returned; frames stay encoded.

    Raises:
      ValueError: the bytes hold no clip, or one that cannot be; see `Clip.check`.
    """
    try:
        fields: Mapping[str, Any] = _parser().parse_example(data)
        values: dict[str, Any] = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in fields.items()
        }
        values |= {name: float(fields[name]) for name in ("fps", "effective_fps")}
        values |= {name: int(fields[name]) for name in ("height", "width", "start_frame")}
        values["frames"] = tuple(np.atleast_1d(fields["frames"]))
        clip = Clip(**values)
    except Exception as error:  # whatever the protocol buffer's parser and a missing field raise
        raise ValueError("it holds no clip") from error
    clip.check()
    return clip


_features = functools.cache(features)


@functools.cache
def _serializer() -> example_serializer.ExampleSerializer:
    return example_serializer.ExampleSerializer(features().get_serialized_info())  # pyright: ignore[reportArgumentType]


@functools.cache
def _parser() -> example_parser.ExampleParserNp:
    return example_parser.ExampleParserNp(features().get_serialized_info())  # pyright: ignore[reportArgumentType]


class CartoonClips(tfds.core.GeneratorBasedBuilder):
    """Opens sets that `clip_sets.write_clips` wrote.

    It writes none itself: TFDS's own writer keeps a split in memory, and beyond 1 GB it needs TensorFlow.
    """

    name = "cartoon_clips"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First layout."}

    def _info(self) -> tfds.core.DatasetInfo:
        # Not `dataset_info_from_configs`, which looks for metadata files beside the source.
        return tfds.core.DatasetInfo(builder=self, description=DESCRIPTION, features=features())

    def _split_generators(self, dl_manager):
        raise UserError("this set of clips does not exist yet: make it with `tooncrafter curate`")

    def _generate_examples(self):
        raise NotImplementedError
