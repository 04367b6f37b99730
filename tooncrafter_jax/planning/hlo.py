"""Reads the text of a compiled program (HLO): instructions, the computations that they call, and how often these
run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b(pred|bf16|[sucf]\d+(?:e\d+m\d+\w*)?|token|opaque)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_MANY_CALLED = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Shape:
    """Type of one array, as one device has it."""

    dtype: str
    sides: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Without what a layout adds in padding."""
        digits = re.match(r"[sucf](\d+)", self.dtype)
        bits = _BITS[self.dtype] if self.dtype in _BITS else int(digits[1]) if digits else 0
        return prod(self.sides) * max(bits, 8 if bits else 0) // 8


@dataclass
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: as in the text.
      shapes: of the result; several for a tuple.
      operands: names of instructions of the same computation.
      literal: what is in the brackets of an instruction without operands, such as a constant's value.
      attributes: the rest of the line.
      is_root: whether it is the computation's result.
    """

    name: str
    opcode: str
    shapes: list[Shape]
    operands: list[str]
    literal: str
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Of the result, all parts together."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def source(self) -> str:
        """The traced operation that it comes from; empty if the text does not say."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def called(self) -> dict[str, list[str]]:
        """Kind of call -> names of computations."""
        found: dict[str, list[str]] = defaultdict(list)
        for kind, name in _CALLED.findall(self.attributes):
            found[kind].append(name)
        for names in _MANY_CALLED.findall(self.attributes):
            found["branches"] += re.findall(r"[\w.\-]+", names)
        return found


@dataclass
class Computation:
    """Instructions by name, in their order."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        """The result."""
        return next(one for one in self.instructions.values() if one.is_root)


@dataclass
class Program:
    """All computations of a compiled program by name."""

    computations: dict[str, Computation]
    entry: str

    def running(self, *, into_fusions: bool = False) -> Iterator[tuple[Instruction, Computation, float]]:
        """Instructions that run, with the computation that they are in and how often it runs.

        Args:
          into_fusions: whether the inside of a fusion counts too, or only the fusion as one instruction.
        """
        yield from self._running(self.entry, 1.0, into_fusions)

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs: as its text says or, for one that counts from 0 as scans do, its limit; 1 if neither
        is known.
        """
        stated = _TRIPS.search(loop.attributes)
        if stated:
            return int(stated[1])
        condition = self.computations[loop.called["condition"][0]]
        test = condition.root
        if test.opcode != "compare" or "direction=LT" not in test.attributes:
            return 1
        limit = condition.instructions[test.operands[1]]
        return int(limit.literal) if limit.opcode == "constant" and limit.literal.isdecimal() else 1

    def _running(self, name: str, times: float, into_fusions: bool) -> Iterator[tuple[Instruction, Computation, float]]:
        computation = self.computations[name]
        for one in computation.instructions.values():
            yield one, computation, times
            if one.opcode == "fusion" and not into_fusions:
                continue
            called = one.called
            if one.opcode == "while":
                inner = [(body, self.trips(one)) for body in called["body"]]
            elif one.opcode == "conditional":
                parts = called["branches"] or called["true_computation"] + called["false_computation"]
                inner = [(part, 1) for part in parts]  # which one runs is not known: each counts
            elif one.opcode in ("fusion", "call", "async-start", "custom-call"):
                inner = [(part, 1) for kind in ("calls", "to_apply", "branches") for part in called[kind]]
            else:
                inner = []  # what a reduction applies to two numbers
            for part, count in inner:
                yield from self._running(part, times * count, into_fusions)


def parse_program(text: str) -> Program:
    """The program of `compiled.as_text()`.

    Raises:
      ValueError: there is no entry computation in it.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None or not line.startswith(" "):
            start = _COMPUTATION.match(line)
            if start:
                current = computations.setdefault(start[2], Computation(start[2]))
                entry = start[2] if start[1] else entry
                continue
        found = _INSTRUCTION.match(line)
        if found and current is not None:
            one = _instruction(found[2], found[3], bool(found[1]))
            current.instructions[one.name] = one
    if not entry:
        raise ValueError("the text has no entry computation")
    return Program(computations, entry)


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shapes = [
        Shape(dtype, tuple(int(side) for side in sides.split(",") if side))
        for dtype, sides in _SHAPE.findall(rest[:end])
    ]
    start = rest.index("(", end)
    close = _closing(rest, start)
    operands = re.findall(r"%([\w.\-]+)", rest[start:close])
    literal = "" if operands else rest[start + 1 : close]
    return Instruction(name, rest[end:start].strip(), shapes, operands, literal, rest[close + 1 :], is_root)


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    return len(text) - 1
