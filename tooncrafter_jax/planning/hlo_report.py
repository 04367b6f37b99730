"""What a compiled program does on one device: collectives, operations, memory traffic, and its largest results."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from math import prod

from tooncrafter_jax.planning.hlo import Computation, Instruction, Program, Shape
from tooncrafter_jax.runtime.flops import meeting_places

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"}
_FREE |= {"partition-id", "replica-id", "opt-barrier", "copy-done", "async-done", "async-update", "iota"}
_SPLASH = {"fwd": 2, "dq": 3, "dkv": 4}
"""Products of queries x keys x head width that each of the attention kernels computes."""


@dataclass(frozen=True)
class Collective:
    """All collectives of a kind.

    Attributes:
      count: how many run in a step.
      bytes: of their results on one device.
      traffic: bytes that a device sends, if they run around rings.
    """

    count: int = 0
    bytes: float = 0.0
    traffic: float = 0.0


@dataclass(frozen=True)
class Buffer:
    """A result of an instruction.

    Attributes:
      bytes: on one device, without padding.
      shape: e.g. "bf16[16,40,64,320]".
      source: the traced operation that it comes from.
    """

    bytes: int
    shape: str
    source: str


def collectives(program: Program) -> dict[str, Collective]:
    """Kind -> what the program exchanges of that kind, loops counted as often as they run."""
    found: dict[str, Collective] = defaultdict(Collective)
    seen: set[str] = set()
    for one, computation, times in program.running(into_fusions=True):
        kind = one.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        channel = re.search(r"channel_id=\d+", one.attributes)
        if channel and channel[0] in seen:  # the start and the end of one exchange are fused with different neighbours
            continue
        seen.add(channel[0] if channel else one.name)
        size = max((shape.bytes for shape in one.shapes), default=0)
        if not one.opcode.endswith("-start"):
            size = one.bytes  # several arrays at once; a -start's tuple has operands and results
        members = _members(one)
        if computation.name.startswith("all-reduce-scatter"):
            kind, size = "reduce-scatter", size / max(members, 1)
        share = (members - 1) / members if members else 1.0
        factor = {"all-gather": share, "all-reduce": 2 * share, "reduce-scatter": members - 1, "all-to-all": share}
        before = found[kind]
        found[kind] = Collective(
            before.count + round(times),
            before.bytes + times * size,
            before.traffic + times * size * factor.get(kind, 1.0),
        )
    return dict(found)


def _members(one: Instruction) -> int:
    """Devices of a group; 0 if the text does not say."""
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", one.attributes)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", one.attributes)
    if iota:
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", one.attributes)
    return len(listed[1].split(",")) if listed else 0


def program_flops(program: Program) -> float:
    """Operations of matrix products, convolutions and attention kernels on one device."""
    total = 0.0
    for one, computation, times in program.running(into_fusions=True):
        if one.opcode == "dot":
            total += times * _of_dot(one, computation)
        elif one.opcode == "convolution":
            total += times * _of_convolution(one, computation)
        elif one.opcode == "custom-call":
            total += times * _of_kernel(one, computation)
    return total


def _operand(one: Instruction, index: int, computation: Computation) -> Shape:
    return computation.instructions[one.operands[index]].shapes[0]


def _of_dot(one: Instruction, computation: Computation) -> float:
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
    contracted = [int(axis) for axis in found[1].split(",") if axis] if found else []
    left = _operand(one, 0, computation)
    return 2.0 * prod(one.shapes[0].sides) * prod(left.sides[axis] for axis in contracted)


def _of_convolution(one: Instruction, computation: Computation) -> float:
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    if not labels:
        return 0.0
    of_left, of_right, of_out = labels.groups()
    left, right, out = _operand(one, 0, computation), _operand(one, 1, computation), one.shapes[0]
    window = _window(one.attributes)
    places = 1
    for i in range(len(of_out) - 2):
        letter = str(i)
        places *= meeting_places(
            left.sides[of_left.index(letter)],
            right.sides[of_right.index(letter)],
            out.sides[of_out.index(letter)],
            stride=window("stride", i),
            padding=window("pad", i),
            lhs_dilation=window("lhs_dilate", i),
            rhs_dilation=window("rhs_dilate", i),
        )
    features = out.sides[of_out.index("b")] * out.sides[of_out.index("f")] * right.sides[of_right.index("i")]
    return 2.0 * places * features


def _window(attributes: str):
    found = re.search(r"window=\{([^}]*)\}", attributes)
    values = dict(part.split("=") for part in found[1].split()) if found else {}

    def of_axis(name: str, axis: int) -> int:
        if name not in values:
            return 0 if name == "pad" else 1
        return int(values[name].split("x")[axis].split("_")[0])

    return of_axis


def _of_kernel(one: Instruction, computation: Computation) -> float:
    """Attention kernels, whose inside the compiler's own count does not see; other kernels count nothing."""
    kernel = re.search(r"splash_mha_(fwd|dq|dkv)", one.attributes) or re.search(r"splash_mha_(fwd|dq|dkv)", one.name)
    if not kernel:
        return 0.0
    shapes = [computation.instructions[name].shapes[0] for name in one.operands]  # those of the mask are of integers
    query, key = [s.sides for s in shapes if len(s.sides) >= 3 and s.dtype.startswith(("f", "bf"))][:2]
    return 2.0 * _SPLASH[kernel[1]] * prod(query) * key[-2]


def memory_traffic(program: Program) -> float:
    """Bytes that one device reads and writes if every instruction goes through its memory; of a slice only what is cut
    out.
    """
    total = 0.0
    for one, computation, times in program.running():
        if one.opcode in _FREE or one.opcode.endswith("-done"):
            continue
        total += times * (_written(one, computation, program) + _read(one, computation, program))
    return total


def _written(one: Instruction, computation: Computation, program: Program) -> int:
    root = program.computations[one.called["calls"][0]].root if one.opcode == "fusion" else one
    inside = program.computations[one.called["calls"][0]] if one.opcode == "fusion" else computation
    if root.opcode == "dynamic-update-slice":
        return inside.instructions[root.operands[1]].bytes
    return one.bytes


def _read(one: Instruction, computation: Computation, program: Program) -> int:
    sizes = [computation.instructions[name].bytes for name in one.operands if name in computation.instructions]
    if one.opcode in ("dynamic-slice", "gather", "slice"):
        return one.bytes
    if one.opcode == "dynamic-update-slice":
        return sizes[1]
    if one.opcode != "fusion":
        return sum(sizes)
    inside = program.computations[one.called["calls"][0]]
    parameters = {name: item for name, item in inside.instructions.items() if item.opcode == "parameter"}
    total = 0
    for name, item in parameters.items():
        users = [user for user in inside.instructions.values() if name in user.operands]
        if users and all(user.opcode == "dynamic-slice" for user in users):
            total += sum(user.bytes for user in users)
        elif users and all(user.opcode == "dynamic-update-slice" and user.operands[0] == name for user in users):
            continue
        else:
            total += item.bytes
    return total


def largest_buffers(program: Program, count: int) -> list[Buffer]:
    """The largest results of instructions, equal ones once; arguments of the program are not among them."""
    found: dict[tuple[str, str], Buffer] = {}
    for one, _, _ in program.running():
        if one.opcode in _FREE or one.opcode.endswith("-done"):
            continue
        for shape in one.shapes:
            text = f"{shape.dtype}[{','.join(map(str, shape.sides))}]"
            source = re.sub(r"jit\((\w+)\)/", "", one.source) or one.opcode
            found.setdefault((text, source), Buffer(shape.bytes, text, source))
    return sorted(found.values(), key=lambda buffer: -buffer.bytes)[:count]
