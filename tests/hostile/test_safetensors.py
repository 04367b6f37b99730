"""A .safetensors file from anybody is read rightly or refused in a sentence, whatever its header states."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from tests.hostile.amounts import amounts, bounded_memory, holds_for
from tests.hostile.limited import run_opening
from tests.hostile.strategies import EXTREMES, spoilt_bytes, spoilt_values, texts
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.weights.lora import load_lora
from tooncrafter_jax.weights.misfit import check_shapes
from tooncrafter_jax.weights.safetensors_header import LARGEST_HEADER
from tooncrafter_jax.weights.sources import SafetensorsSource, open_source
from tooncrafter_jax.zoo.network_file import network_kind

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.bias": np.asarray([1.5, -2.0], np.float16),
    "c": np.asarray(3, np.int64),
    "d": np.zeros((0, 4), np.float32),
}
FACTORS = {"lora.unet.x.kernel.a": np.ones((4, 2), np.float32), "lora.unet.x.kernel.b": np.ones((2, 3), np.float32)}


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length % 2**64) + text + data


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def read_or_refuse(path: Path, data: bytes) -> SafetensorsSource | None:
    path.write_bytes(data)
    try:
        source = open_source(path)
        assert isinstance(source, SafetensorsSource)
        assert sum(source.read(name).nbytes for name in source.shapes) == source.bytes <= len(data)
        assert all(source.read(name).shape == shape for name, shape in source.shapes.items())
    except UserError as error:
        assert len(str(error)) < 3000
        return None
    return source


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header with places, shapes and names that contradict each other in some way."""
    header, data = parts(save(TENSORS, {"format": "pt"}))
    header = draw(spoilt_values(header))
    if isinstance(header, dict) and draw(st.booleans()):
        for entry in header.values():
            if isinstance(entry, dict) and draw(st.booleans()):
                entry["data_offsets"] = draw(st.lists(st.integers(0, len(data)), min_size=2, max_size=2))
                entry["shape"] = draw(st.lists(st.sampled_from((*range(4), *EXTREMES)), max_size=10))
    length = draw(st.none() | st.sampled_from(EXTREMES))
    return file_of(header, data, length)


@amounts
def test_any_header(tmp_path: Path, examples: int) -> None:
    """What is read is what the format's own library reads; it may refuse more than we do, never less."""
    path = tmp_path / "m.safetensors"

    def holds(data: bytes) -> None:
        source = read_or_refuse(path, data)
        if source is not None:
            theirs = load_file(path)
            assert theirs.keys() == source.shapes.keys()
            for name, value in theirs.items():
                assert value.tobytes() == source.read(name).tobytes() and value.shape == source.shapes[name]

    holds_for(examples, headers(), holds)


@amounts
def test_any_bytes(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "m.safetensors"
    valid = save(TENSORS, {"format": "pt"})
    holds_for(examples, spoilt_bytes(valid), lambda data: read_or_refuse(path, data) and None)


@amounts
def test_any_names(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "m.safetensors"

    def holds(names: list[str]) -> None:
        entries = [f'{json.dumps(name)}: {{"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}' for name in names]
        read_or_refuse(path, file_of(("{" + ", ".join(entries) + "}").encode(errors="surrogatepass")))

    holds_for(examples, st.lists(texts, max_size=6), holds)


@amounts
@pytest.mark.parametrize("metadata", [{"scale": "0.5"}, {"scale": "nan"}, {}], ids=["scale", "nan", "none"])
def test_any_low_rank_factors(tmp_path: Path, examples: int, metadata: dict[str, str]) -> None:
    path = tmp_path / "lora.safetensors"
    header, data = parts(save(FACTORS, metadata))

    def holds(header: Any) -> None:
        path.write_bytes(file_of(header, data))
        try:
            lora = load_lora(path)
        except UserError:
            return
        assert all(factor.ndim == 2 and np.isfinite(factor).all() for factor in lora.factors.values())
        assert np.isfinite(lora.scale)

    holds_for(examples, spoilt_values(header), holds)


def refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    for read in (open_source, network_kind, load_lora):
        with bounded_memory(512), pytest.raises(UserError, match=message) as error:
            read(path)
        assert len(str(error.value)) < 1000


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_overlapping_tensors(tmp_path: Path) -> None:
    refused(tmp_path, file_of({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "tensor b lies over another")
    same = {f"t{number}": entry([256], 0, 1024) for number in range(1000)}
    refused(tmp_path, file_of(same, bytes(1024)), "lies over another")


def test_holes_and_what_lies_behind(tmp_path: Path) -> None:
    refused(tmp_path, file_of({"a": entry([1], 4, 8)}, bytes(8)), "tensor a does not follow the one before it")
    refused(tmp_path, file_of({"a": entry([1], 0, 4)}, bytes(9)), "5 bytes behind its tensors belong to none")


@pytest.mark.parametrize(
    "extra", ['"__metadata__": {"a": "\\ud800"}', '"__metadata__": {"\\udfff": "a"}', '"x": {"\\ud800": 1, %s}']
)
def test_halves_of_characters(tmp_path: Path, extra: str) -> None:
    """Which the format's own library refuses wherever they are."""
    entry = '"dtype": "F32", "shape": [1], "data_offsets": [0, 4]'
    header = "{" + (extra % entry if "%s" in extra else f'"x": {{{entry}}}, {extra}') + "}"
    assert read_or_refuse(tmp_path / "m.safetensors", file_of(header.encode(), bytes(4))) is None


def test_a_mark_of_the_order_of_bytes(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"x": entry}).encode()
    assert read_or_refuse(tmp_path / "m.safetensors", file_of(header, bytes(4))) is not None
    assert read_or_refuse(tmp_path / "m.safetensors", file_of(b"\xef\xbb\xbf" + header, bytes(4))) is None


def test_a_hundred_dimensions(tmp_path: Path) -> None:
    refused(tmp_path, file_of({"a": entry([1] * 100, 0, 4)}, bytes(4)), "of 100 dimensions for the tensor a")
    many = [2**62 + 1] * 500_000  # whose product has 30 million digits
    refused(tmp_path, file_of({"a": entry([0, *many], 0, 0)}), "of 500001 dimensions for the tensor a")
    refused(tmp_path, file_of({"a": entry([0, 2**62], 0, 0)}), "states the shape 0x4611686018427387904")
    refused(tmp_path, file_of({"a": entry([0, 2**40, 2**40], 0, 0)}), "states the shape 0x1099511627776x1099511627776")
    refused(
        tmp_path, file_of({"a": entry([2**32, 2**32], 0, 0)}), "the size of a does not fit its shape"
    )  # 0 in 64 bits


def test_a_hundred_thousand_names(tmp_path: Path) -> None:
    """They can be read; the sentence about them names some."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(
        file_of(
            {f"model.layer.{number}.weight": entry([1], 4 * number, 4 * number + 4) for number in range(100_000)},
            bytes(400_000),
        )
    )
    source = open_source(path)
    assert len(source.shapes) == 100_000
    with pytest.raises(UserError, match=r"100000 unexpected: .* and 99,990 more") as error:
        check_shapes(source.shapes, {}, source.where)
    assert len(str(error.value)) < 600


def test_names_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path, file_of({"x" * 2_000_000: entry([1], 0, 4)}, bytes(4)), "a name of 2,000,000 characters")
    refused(
        tmp_path,
        file_of(b'{"\\ud800": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}', bytes(4)),
        "is not text",
    )
    one = b'"a": {"dtype": "F32", "shape": [], "data_offsets": [%d, %d]}'
    twice = b"{" + one % (0, 4) + b", " + one % (4, 8) + b"}"
    refused(tmp_path, file_of(twice, bytes(8)), "has the key 'a' twice: copy the file again")


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 100_000 + b"}", b"\x00" * 64]
)
def test_json_that_breaks_parsers(tmp_path: Path, header: bytes) -> None:
    refused(tmp_path, file_of(header, bytes(8)), "is not a safetensors file or is cut off")


def test_a_header_of_more_than_weights_can_have(tmp_path: Path) -> None:
    refused(tmp_path, file_of(b"{" + b" " * LARGEST_HEADER + b"}"), "states a header of 16,777,218 bytes")


@pytest.mark.parametrize("length", [20 * 2**30, 100_000_001])
def test_a_sparse_file_with_a_huge_header(tmp_path: Path, length: int) -> None:
    """20 GiB on no disk blocks at all: nothing of it is read."""
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(8 + length)
    done = run_opening("tooncrafter_jax.weights.sources", "open_source", path)
    assert done.returncode == 0, done.stderr
    assert f"states a header of {length:,} bytes, but that of a model has at most" in done.stdout


def test_a_sparse_file_of_huge_low_rank_factors(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    text = json.dumps({"__metadata__": {"scale": "1"}, "lora.unet.x.kernel.a": entry([2**36, 2], 0, 2**39)}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 2**39)
    with bounded_memory(64), pytest.raises(UserError, match="states 549,755,813,888 bytes of low-rank factors"):
        load_lora(path)


def test_low_rank_factors_that_poison_a_model(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    for scale in ("nan", "inf", "-inf"):
        path.write_bytes(save(FACTORS, {"scale": scale}))
        with pytest.raises(UserError, match=f"states a scale of {scale}"):
            load_lora(path)
    path.write_bytes(save({**FACTORS, "lora.unet.x.kernel.a": np.full((4, 2), np.nan, np.float32)}, {"scale": "1"}))
    with pytest.raises(UserError, match="values in lora.unet.x.kernel.a that are not finite"):
        load_lora(path)
    path.write_bytes(save({"unet.x.kernel": np.ones((4, 2), np.float32)}, {"scale": "1"}))
    with pytest.raises(UserError, match="which is no low-rank factor"):
        load_lora(path)
