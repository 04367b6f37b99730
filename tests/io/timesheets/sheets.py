"""Sheets and drawings for the tests of every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from tooncrafter_jax import notes
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.timesheets import Exposure, Layer, Mark, TimeSheet, exposures_of, read_timesheet
from tooncrafter_jax.io.timesheets.xdts import IDENTIFIER

NAMES = ("A", "B", "a b", "背景", "ガ", 'say "hi"', "A-B", "x_1", "12", "comma, semi; colon:", "con")
"""Of layers: each gives files of its own on every system."""
NUMBERS = ("0", "1", "2", "3", "10", "12a", "12b", "1234567", "12345678Z")
LABELS = ("smile", "up left", "顔")


def disc(count: int = 6, height: int = 24, width: int = 32, colour: tuple[int, int, int] = (200, 30, 40)) -> np.ndarray:
    """A disc on transparency that goes to the right: uint8 (T, H, W, 4)."""
    y, x = np.mgrid[0:height, 0:width]
    frames = np.zeros((count, height, width, 4), np.uint8)
    for index, frame in enumerate(frames):
        frame[np.hypot(y - height / 2, x - 6 - 4 * index) < 5] = (*colour, 255)
    return frames


def track(frames: list[tuple[int, str]], number: int = 0) -> dict[str, Any]:
    """A track of XDTS from frames and values."""
    entries = [{"frame": frame, "data": [{"id": 0, "values": [value]}]} for frame, value in frames]
    return {"trackNo": number, "frames": entries}


def root(*tracks: dict[str, Any], duration: int = 12, names: tuple[str, ...] = ("A", "B", "C")) -> dict[str, Any]:
    """An XDTS file's object."""
    return {
        "version": 5,
        "timeTables": [
            {
                "name": "sheet1",
                "duration": duration,
                "timeTableHeaders": [{"fieldId": 0, "names": list(names)}],
                "fields": [{"fieldId": 0, "tracks": list(tracks)}],
            }
        ],
    }


def xdts(value: object) -> bytes:
    """An XDTS file."""
    return f"{IDENTIFIER}\n{json.dumps(value)}".encode()


Plan = dict[str, Any]
"""What a sheet or layer is made of. Strategies give plans, as the checks of annotations draw random numbers."""


@st.composite
def layer_plans(
    draw: st.DrawFn, duration: int, drawings: tuple[str, ...], marks: bool = False, looks: bool = True
) -> Plan:
    """For a layer, with whatever its format keeps."""
    frames = draw(st.dictionaries(st.integers(0, duration - 1), st.none() | st.sampled_from(drawings), max_size=8))
    roles = st.sampled_from((None, None, "key", "reference")) if marks else st.none()
    kinds = st.sampled_from(("in-between", "reverse"))
    return {
        "name": draw(st.sampled_from(NAMES)),
        "entries": [(frame, frames[frame], draw(roles) if frames[frame] else None) for frame in sorted(frames)],
        "marks": draw(st.dictionaries(st.integers(0, duration - 1), kinds, max_size=4)) if marks else {},
        "visible": draw(st.booleans()) if looks else True,
        "opacity": draw(st.integers(0, 8)) / 8 if looks else 1.0,
    }


@st.composite
def timing_plans(draw: st.DrawFn) -> Plan:
    """For what XDTS keeps of a sheet."""
    duration = draw(st.integers(1, 40))
    numbers = draw(st.none() | st.tuples(st.integers(0, 9999), st.integers(0, 9999)))
    scene, cut = map(str, numbers) if numbers else ("", "")
    layers = layer_plans(duration, NUMBERS + LABELS, marks=True, looks=False)
    names = st.sampled_from(NAMES)
    return {
        "name": draw(names),
        "duration": duration,
        "layers": draw(st.lists(layers, max_size=4)),
        "scene": scene,
        "cut": cut,
    }


@st.composite
def drawn_plans(draw: st.DrawFn) -> Plan:
    """For what formats with pictures keep of a sheet."""
    duration = draw(st.integers(1, 40))
    return {
        "name": draw(st.sampled_from(NAMES)),
        "duration": duration,
        "layers": draw(st.lists(layer_plans(duration, NUMBERS + LABELS), min_size=1, max_size=4)),
        "size": draw(st.tuples(st.integers(8, 4096), st.integers(8, 4096))),
        "fps": draw(st.sampled_from((1.0, 12.0, 23.976, 24.0, 1000.0))),
    }


def layer_of(plan: Plan) -> Layer:
    """A plan's layer; its marks are where no exposure begins."""
    exposures = exposures_of(Exposure(*entry) for entry in plan["entries"])
    begun = {exposure.frame for exposure in exposures}
    marks = tuple(Mark(frame, kind) for frame, kind in sorted(plan["marks"].items()) if frame not in begun)
    return Layer(plan["name"], exposures, marks, plan["visible"], plan["opacity"])


def sheet_of(plan: Plan) -> TimeSheet:
    """A plan's sheet."""
    values: dict[str, Any] = plan | {"layers": tuple(layer_of(layer) for layer in plan["layers"])}
    return TimeSheet(**values)


def refusal(path: Path, title: str) -> str:
    """The one sentence that a damaged sheet ends in: which file, what it was read as, why, and what to do."""
    with notes.collected(), pytest.raises(UserError) as error:
        read_timesheet(path)
    text = str(error.value)
    assert text.startswith(f"'{path}' cannot be read as {title} (") and text.endswith(
        "): export it again, or choose another"
    )
    assert len(text) < 500 + len(str(path)) and "\n" not in text
    return text
