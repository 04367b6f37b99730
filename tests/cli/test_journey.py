"""The journey of a request's pictures (docs/architecture.md): each is opened once, decoded once and hashed once."""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.world import Command, World, draw, draw_lines

_opened: list[Counter[str]] = []
"""Of the tests that run now; an audit hook cannot be taken away again."""


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened and isinstance(arguments[0], str | os.PathLike):
        _opened[-1][os.path.basename(arguments[0])] += 1


sys.addaudithook(_count)


@pytest.fixture
def opened() -> Iterator[Counter[str]]:
    """How often the interpreter opened each file, by its name."""
    _opened.append(Counter())
    yield _opened[-1]
    _opened.pop()


def test_a_pair_with_many_sketches(
    world: World, command: Command, opened: Counter[str], hashed: Counter[str], decoded: Counter[str]
):
    sketches = [f"s{number}.png" for number in range(2, 9)]
    for number, name in enumerate(sketches, 2):
        draw_lines(world.path / name, ink=number)
    arguments = [f"--sketch={name[1]}:{world.path / name}" for name in sketches]
    opened.clear()
    assert command("sample", *world.pair(*arguments)).code == 0
    pictures = ["first.png", "last.png", *sketches]
    assert {name: (opened[name], decoded[name], hashed[name]) for name in pictures} == dict.fromkeys(
        pictures, (1, 1, 1)
    )


def test_a_shot(world: World, command: Command, opened: Counter[str], hashed: Counter[str], decoded: Counter[str]):
    pictures = [draw(world.path / f"p{number}.png", 10 * number) for number in range(3)]
    keys = ",".join(f"{8 * number}:{path}" for number, path in enumerate(pictures))
    sketch = draw_lines(world.path / "sketch.png")
    opened.clear()
    argv = [f"--keys={keys}", f"--sketch=4:{sketch}", f"--out={world.out / 'shot.gif'}", *world.common]
    assert command("sample", *argv).code == 0
    for path in pictures:
        assert (opened[path.name], decoded[path.name], hashed[path.name]) == (2, 1, 1), (
            "read, and hashed for its record"
        )


def test_a_list_and_the_same_list_again(
    world: World, command: Command, opened: Counter[str], hashed: Counter[str], decoded: Counter[str]
):
    pictures = [f"p{number}.png" for number in range(5)]
    for number, name in enumerate(pictures):
        draw(world.path / name, 10 * number)
    lines: list[dict[str, Any]] = [{"first": one, "last": other} for one, other in itertools.pairwise(pictures)]
    draw_lines(world.path / "sketch.png")
    lines[1]["sketches"] = lines[2]["sketches"] = {"7": "sketch.png"}
    pictures.append("sketch.png")
    opened.clear()
    assert command("sample", *world.manifest(*lines)).code == 0
    assert {name: (opened[name], decoded[name], hashed[name]) for name in pictures} == dict.fromkeys(
        pictures, (1, 1, 1)
    )
    for count in (opened, hashed, decoded):
        count.clear()
    assert "0 made, 4 done before" in command("sample", *world.manifest(*lines)).out
    assert {name: (opened[name], decoded[name], hashed[name]) for name in pictures} == dict.fromkeys(
        pictures, (1, 0, 1)
    ) | {"sketch.png": (1, 1, 1)}, "only the polarity of a sketch is not known without its pixels"
