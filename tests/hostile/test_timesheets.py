"""Time sheets of anybody: a sheet that can be written again, or a sentence; no memory for what they state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.hostile.amounts import amounts, bounded_memory, holds_for
from tests.hostile.strategies import spoilt_bytes, spoilt_values, texts
from tests.io.timesheets.sheets import root, track, xdts
from tests.io.timesheets.test_oca import SAMPLE as OCA
from tests.io.timesheets.test_tvpaint_csv import KRITA, TVPAINT
from tooncrafter_jax import notes
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.timesheets import TIMESHEETS, TimeSheet, level_files, parse_drawing_file, read_timesheet
from tooncrafter_jax.io.timesheets.levels import level_paths
from tooncrafter_jax.io.timesheets.oca import oca_bytes, parse_oca
from tooncrafter_jax.io.timesheets.tvpaint_csv import csv_bytes, parse_csv
from tooncrafter_jax.io.timesheets.xdts import parse_xdts, xdts_bytes

XDTS = root(
    track([(-1, "7"), (0, "1"), (2, "SYMBOL_TICK_1"), (4, "12a"), (8, "SYMBOL_NULL_CELL")]),
    track([(0, "smile"), (3, "SYMBOL_TICK_2"), (6, "SYMBOL_HYPHEN")], 1),
) | {"header": {"cut": "1", "scene": "2"}}
NOWHERE = Path("nowhere/cut.csv")


def checked(sheet: TimeSheet) -> None:
    """Whatever was read is a sheet: it can be asked for everything, and written in every format."""
    for layer in sheet.layers:
        assert len(layer.shown(sheet.duration)) == sheet.duration
        assert set(layer.in_betweens()) <= set(range(sheet.duration)) and layer.keys() is not None
        for cel in layer.cels.values():
            assert not cel.path.is_absolute() and ".." not in cel.path.parts
    xdts_bytes(sheet)
    for folders, write in ((True, oca_bytes), (False, csv_bytes)):
        paths = level_paths(sheet.levels(), folders)
        assert all(
            ".." not in path.split("/") and not path.startswith("/") for d in paths.values() for path in d.values()
        )
        if sheet.duration * len(sheet.layers) < 10_000:
            write(sheet, paths)


def read_or_refused(read: Callable[[bytes], TimeSheet]) -> Callable[[bytes], None]:
    def holds(data: bytes) -> None:
        try:
            with notes.collected() as said:
                checked(read(data))
        except (ValueError, UserError) as error:
            assert len(str(error)) < 1000
        else:
            assert all(len(note) < 1000 for note in said)

    return holds


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@amounts
def test_any_bytes_of_xdts(examples: int) -> None:
    holds_for(examples, spoilt_bytes(xdts(XDTS)) | st.binary(), read_or_refused(parse_xdts))


@amounts
def test_any_values_of_xdts(examples: int) -> None:
    holds_for(examples, spoilt_values(XDTS).map(xdts), read_or_refused(parse_xdts))


@amounts
def test_any_bytes_of_oca(examples: int) -> None:
    holds_for(examples, spoilt_bytes(OCA.encode()), read_or_refused(parse_oca))


@amounts
def test_any_values_of_oca(examples: int) -> None:
    holds_for(examples, spoilt_values(json.loads(OCA)).map(as_json), read_or_refused(parse_oca))


@amounts
def test_any_bytes_of_csv(examples: int) -> None:
    valid = st.sampled_from((KRITA.encode(), TVPAINT.encode()))
    holds_for(examples, spoilt_bytes(valid), read_or_refused(lambda data: parse_csv(data, NOWHERE)))


@amounts
def test_any_cells_of_csv(examples: int) -> None:
    """Words of the file in the place of others, and texts of anybody's."""
    words = [str(word) for word in TVPAINT.split('"')]

    @st.composite
    def spoilt(draw: st.DrawFn) -> bytes:
        mixed = list(words)
        for _ in range(draw(st.integers(1, 4))):
            mixed[draw(st.integers(0, len(words) - 1))] = draw(texts | st.sampled_from(words))
        return '"'.join(mixed).encode(errors="surrogatepass")

    holds_for(examples, spoilt(), read_or_refused(lambda data: parse_csv(data, NOWHERE)))


@amounts
def test_any_names(examples: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "_0001.png").touch()

    def holds(names: tuple[str, str]) -> None:
        name, level = names
        found = parse_drawing_file(name, level)
        assert found is None or found.level == level
        parse_drawing_file(name)
        assert level_files(tmp_path / "in", level) == {}

    holds_for(examples, st.tuples(texts | st.text(), texts | st.text()), holds)


@pytest.mark.parametrize("form", TIMESHEETS)
def test_sparse_files(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{TIMESHEETS[form].endings[0]}"
    with path.open("wb") as file:
        file.truncate(20 * 2**30)
    with bounded_memory(64), pytest.raises(UserError, match="has more than 16,777,216 bytes"):
        read_timesheet(path)


@pytest.mark.parametrize(
    ("ending", "data"),
    [
        ("csv", (KRITA + '#00004, "' + "a" * 60_000 + '"\n').replace("shot", "," * 3900).encode()),
        ("csv", (KRITA[: KRITA.index("#00000")] + "".join(f"#{n}\n" for n in range(200_000))).encode()),
        ("csv", b'UTF-8, TVPaint, "' * 500_000),
        ("xdts", xdts(root(track([(n, "1") for n in range(210_000)])))),
        ("xdts", b"exchangeDigitalTimeSheet Save Data" + b" [" + b"{}," * 2**20 + b"{}]"),
        ("oca", as_json({"ocaVersion": "1", "layers": [{"name": "a", "frames": [{"name": "a"}] * 210_000}]})),
        ("oca", as_json({"ocaVersion": "1", "layers": [{"childLayers": [{}] * 900}] * 900})),
    ],
    ids=["cells", "frames", "quotes", "entries", "objects", "exposures", "layers"],
)
def test_many_of_everything(tmp_path: Path, ending: str, data: bytes) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data)
    with bounded_memory(512), notes.collected(), pytest.raises(UserError) as error:
        read_timesheet(path)
    assert len(str(error.value)) < 600 + len(str(path))


def test_many_drawings_of_one_name_take_no_time() -> None:
    frames = [{"name": "a", "fileName": f"a/{n}.png", "frameNumber": n} for n in range(50_000)]
    value = {"ocaVersion": "1", "endTime": 50_000, "layers": [{"name": "a", "frames": frames}]}
    assert len(parse_oca(as_json(value)).layers[0].drawings()) == 50_000
