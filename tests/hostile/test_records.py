"""Records of clips, sets and results of others: whatever they state, a sentence, and nothing made by what they
state.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from hypothesis import strategies as st
from PIL import Image

from tests.hostile.amounts import amounts, bounded_memory, holds_for
from tests.hostile.strategies import NUMBERS, spoilt_bytes, spoilt_values, texts
from tooncrafter_jax.data.cartoon_clips.builder import parse_clip, serialize_clip
from tooncrafter_jax.data.clip_sets import ClipFile, ClipReference, ClipSet, write_clips
from tooncrafter_jax.data.records import Clip, clip_of_pictures, decode_frame
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.folder import Folder, read_video
from tooncrafter_jax.evaluation.row_store import file_name

PICTURES = np.arange(2 * 16 * 24 * 3, dtype=np.uint8).reshape(2, 16, 24, 3)
CLIP = clip_of_pictures(PICTURES, id="film/000", source="film", fps=12.0, scores={"motion": 1.5})


def png(width: int, height: int, data: bytes | None = None) -> bytes:
    """A picture from its definition: of any stated size, whatever its data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00" * 1000 if data is None else data)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def clip_file(path: Path, records: list[bytes]) -> Path:
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def parsed(data: bytes) -> Clip | None:
    try:
        clip = parse_clip(data)
    except ValueError as error:
        assert len(str(error)) < 500
        return None
    assert 0 < clip.height * clip.width <= 2**25 and 0 < clip.fps <= 1000 and math.isfinite(clip.effective_fps)
    try:
        pictures = clip.decode([0])
    except UserError:
        return None
    assert pictures.shape == (1, clip.height, clip.width, 3)
    return clip


@amounts
def test_any_bytes(examples: int) -> None:
    def holds(data: bytes) -> None:
        parsed(data)

    holds_for(examples, spoilt_bytes(serialize_clip(CLIP)) | st.binary(), holds)


@amounts
def test_any_fields(examples: int) -> None:
    """Records that a program of anybody's could have written, with every number and text there is."""
    integers = st.sampled_from([n for n in NUMBERS if isinstance(n, int) and -(2**31) <= n < 2**31])
    rates = st.sampled_from([float(np.float32(n)) for n in NUMBERS if not isinstance(n, int) or abs(n) < 2**64])
    words = texts.map(lambda text: text.encode(errors="replace").decode())
    fields = st.fixed_dictionaries(
        {},
        optional={
            "height": integers | st.just(16),
            "width": integers | st.just(24),
            "fps": rates,
            "effective_fps": rates,
            "start_frame": integers,
            "id": words,
            "source": words,
            "caption": words,
            "frames": st.lists(
                st.sampled_from((CLIP.frames[0], b"", b"GIF89a", png(2**31 - 1, 2**31 - 1))), max_size=3
            ).map(tuple),
            "scores": st.dictionaries(st.sampled_from(("motion", "text_area")), rates),
        },
    )

    def holds(changes: dict[str, Any]) -> None:
        parsed(serialize_clip(dataclasses.replace(CLIP, **changes)))

    holds_for(examples, fields, holds)


@amounts
def test_any_frame(examples: int) -> None:
    buffers = {}
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(PICTURES[0]).save(buffer, kind)
        buffers[kind] = buffer.getvalue()

    def holds(data: bytes) -> None:
        try:
            assert decode_frame(data, (16, 24)).shape == (16, 24, 3)
        except (OSError, ValueError):
            pass

    holds_for(examples, st.sampled_from(sorted(buffers)).flatmap(lambda kind: spoilt_bytes(buffers[kind])), holds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 2**31 - 1}, "its frames are stated to have 24 x 2147483647 pixels"),
        ({"height": -5}, "its frames are stated to have 24 x -5 pixels"),
        ({"height": 2**14, "width": 2**14}, "16384 x 16384 pixels, which is too many"),
        ({"fps": math.nan}, "its rate is stated as nan frames"),
        ({"fps": math.inf}, "its rate is stated as inf frames"),
        ({"fps": 0.0}, "its rate is stated as 0 frames"),
        ({"effective_fps": math.nan}, "12 frames and nan drawings a second"),
        ({"start_frame": -1}, "its first frame is stated as -1"),
        ({"frames": ()}, "it has no frames"),
        ({"id": "x" * 100_000}, "it has no id, or one that is too long"),
        ({"scores": {"motion": math.inf}}, "a score that is infinite"),
    ],
)
def test_records_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = clip_file(tmp_path / "a.array_record", [serialize_clip(dataclasses.replace(CLIP, **changes))])
    with bounded_memory(64), pytest.raises(ValueError, match=message):
        parse_clip(serialize_clip(dataclasses.replace(CLIP, **changes)))
    with pytest.raises(UserError, match=f"record 0 of '.*' is damaged .*{message}") as error:
        ClipFile(path)[0]
    assert len(str(error.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "frame",
    [png(2**31 - 1, 2**31 - 1), png(30_000, 30_000), png(9000, 9000), png(24, 17), b"GIF89a", b"", b"\x00" * 100],
    ids=["2^62 pixels", "900 megapixels", "81 megapixels", "another size", "cut", "empty", "zeros"],
)
def test_frames_that_are_none_of_the_clip(frame: bytes) -> None:
    """A bomb is known by its header, and no picture is made."""
    clip = parse_clip(serialize_clip(dataclasses.replace(CLIP, frames=(frame, frame))))
    with bounded_memory(64), pytest.raises(UserError, match="frame 0 of clip 'film/000' is damaged"):
        clip.decode()


def test_a_clip_of_a_stated_size_is_not_made_before_a_frame_has_it() -> None:
    """4 frames of 5792 x 5792 pixels would take 400 MB; the frames are small."""
    clip = dataclasses.replace(CLIP, height=5792, width=5792, frames=CLIP.frames * 2)
    clip.check()
    with bounded_memory(64), pytest.raises(UserError, match=r"damaged \(it has 24 x 16 pixels\)"):
        clip.decode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_clips(tmp_path / "set", {"train": [ClipReference(CLIP.id, 1000, lambda: CLIP)]})
    return next((tmp_path / "set").rglob("dataset_info.json")).parent


def opened(directory: Path) -> None:
    try:
        assert isinstance(ClipSet(directory, "train")[0], Clip)
    except UserError as error:
        assert len(str(error)) < 1000 + len(str(directory))


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@amounts
def test_any_description_of_a_set(directory: Path, file: str, examples: int) -> None:
    """A tenth of the examples: TFDS is slow. Its reader's threads need address space, so that memory is not bounded."""
    valid = json.loads((directory / file).read_text())

    def holds(values: Any) -> None:
        (directory / file).write_text(json.dumps(values))
        opened(directory)

    holds_for(examples // 10, spoilt_values(valid), holds, None)


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name"])
def test_a_set_never_names_a_program(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """TFDS imports the module of a feature's class, which would be a file that somebody has put beside the set."""
    marker = tmp_path / "it ran"
    (tmp_path / "beside_a_set.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    features = json.loads((directory / "features.json").read_text())
    del features["featuresDict"]["features"]["caption"]["pythonClassName"]
    features["featuresDict"]["features"]["caption"][key] = "beside_a_set.Text"
    (directory / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match="names beside_a_set.Text, which is no part of a clip and could be a program"):
        ClipSet(directory)
    assert not marker.exists()


def test_a_set_that_states_more_clips_than_it_has(directory: Path) -> None:
    info = json.loads((directory / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["1000000000000"]
    (directory / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="damaged|missing or cut off"):
        ClipSet(directory)[5]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "x" * 5000, "a\x00b", "\ud800", "..", "\x1b[2J"]
)
def test_ids_never_lead_out_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(UserError, match="leads out of|cannot be a file's name|lacks clip") as error:
        Folder(tmp_path / "results").require([name])
    assert str(error.value).isprintable()
    kept = file_name(name)
    assert (
        "/" not in kept and "\x00" not in kept and not kept.startswith(".") and len(kept) < 200 and kept.isprintable()
    )


@amounts
def test_any_video_of_others(tmp_path: Path, examples: int) -> None:
    """A tenth of the examples for each kind."""
    valid = {}
    for kind in ("gif", "webp", "png"):
        buffer = io.BytesIO()
        frames = [Image.fromarray(picture) for picture in PICTURES]
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100)
        valid[kind] = buffer.getvalue()

    def holds(case: tuple[str, bytes]) -> None:
        path = tmp_path / f"a.{case[0]}"
        path.write_bytes(case[1])
        try:
            assert len(read_video(path, 4)) <= 5
        except UserError:
            pass

    cases = st.sampled_from(sorted(valid)).flatmap(lambda kind: st.tuples(st.just(kind), spoilt_bytes(valid[kind])))
    holds_for(examples, cases, holds)


def test_numbers_in_names_of_pictures(tmp_path: Path) -> None:
    """Python refuses to read a number of more than 4300 digits; a name has at most 255."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for name in ("9" * 200, "1", "\u0663"):
        Image.fromarray(PICTURES[0]).save(folder / f"{name}.png")
    assert len(read_video(folder, 4)) == 3
    shutil.rmtree(folder)
