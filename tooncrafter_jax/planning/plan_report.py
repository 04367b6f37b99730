"""A plan as a text for people and as plain values for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jax.sharding import Mesh

from tooncrafter_jax.planning.plan import Plan
from tooncrafter_jax.planning.plan_run import RunPlan
from tooncrafter_jax.planning.topologies import Topology
from tooncrafter_jax.runtime.distributed import describe_machine

GIB = 2**30


def plan_text(plan: Plan) -> str:
    """The plan in lines."""
    mesh = ",".join(f"{axis}:{size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    lines = [
        f"{plan.step} step of {plan.batch} clips on {plan.topology.name}, {mesh} ({plan.compile_seconds:.0f} s to "
        "compile)"
    ]
    lines += [_verdict(plan), "", *_memory(plan), "", *_flops(plan)]
    if plan.memory is not None:
        lines += ["", *_collectives(plan), "", *_largest(plan)]
    if plan.seconds is not None:
        lines += ["", *_seconds(plan)]
    return "\n".join(lines)


def hosts_text(topology: Topology, mesh: Mesh, batch: int, rows: Mapping[int, Sequence[int]]) -> str:
    """Which rows of a batch each host loads, a line a host."""
    devices = Counter(device.process_index for device in mesh.devices.flat)
    loaded = sum(map(len, rows.values()))
    lines = [f"{topology.name}: {describe_machine(mesh)}"]
    lines.append(
        f"rows of a batch of {batch} that each host loads; a row is loaded by {loaded / batch:g} of {len(rows)} hosts"
    )
    lines += [
        f"  host {host:<4}{devices[host]} devices  {len(own):>4} rows  {_ranges(own)}" for host, own in rows.items()
    ]
    return "\n".join(lines)


def _ranges(rows: Sequence[int]) -> str:
    """Ascending numbers, neighbours together: "0-3, 8, 12-15"."""
    starts = [row for i, row in enumerate(rows) if i == 0 or rows[i - 1] != row - 1]
    ends = [row for i, row in enumerate(rows) if i + 1 == len(rows) or rows[i + 1] != row + 1]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def run_text(run: RunPlan) -> str:
    """The plan of the step, then what every program of the run takes beside what stays on the devices."""
    lines = [plan_text(run.step), "", "peak of the whole run, a device"]
    for program in run.programs:
        name = f"{program.name}, {program.clips} clip{'s' if program.clips > 1 else ''}"
        if program.memory is None:
            lines.append(f"  {name:<24}{'DOES NOT FIT':>12}   {program.refusal}")
        else:
            temporary = f"of which temporary {_gib(program.memory.temp)}"
            lines.append(f"{_row(name, program.memory.peak + program.beside)}   {temporary}")
    peak, chip = run.largest.peak, run.step.topology.chip
    if peak is not None:
        lines.append(f"{_row('largest', peak)}   {run.largest.name}")
    if chip is not None:
        lines.append(f"  the run {'fits' if run.fits else 'DOES NOT FIT'} {_gib(chip.memory)} a chip")
    return "\n".join(lines)


def run_values(run: RunPlan) -> dict[str, object]:
    """The plan of the step as values that JSON has, and under `run` those of all programs and the largest peak."""
    programs = {program.name: asdict(program) | {"peak": program.peak} for program in run.programs}
    largest = run.largest
    values = {"programs": programs, "largest": largest.name, "peak": largest.peak, "fits": run.fits}
    return {**plan_values(run.step), "run": values}


def _verdict(plan: Plan) -> str:
    chip = plan.topology.chip
    if chip is None:
        return (
            "simulated: compiled for CPU devices, whose memory and collectives differ from an accelerator's; "
            "for a TPU, pip install 'tooncrafter-jax[tpu]' and name it by --topology"
        )
    if plan.memory is None:
        return (
            f"DOES NOT FIT: {plan.refusal}; let fewer clips share a device (more devices, config.accumulation, "
            "frames in config.mesh), share parameters (fsdp in config.mesh), or keep less (config.remat)"
        )
    share = plan.memory.peak / chip.memory
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return f"{verdict}: {_gib(plan.memory.peak)} of {_gib(chip.memory)} a chip ({share:.0%})"


def _memory(plan: Plan) -> list[str]:
    lines = ["bytes a device", *(_row(kind, size) for kind, size in plan.arguments.items())]
    lines.append(_row("arguments together", sum(plan.arguments.values())))
    if plan.memory is not None:
        memory = plan.memory
        lines += [_row("as laid out", memory.argument), _row("output", memory.output)]
        lines += [
            _row("  in the arguments' place", memory.alias),
            _row("temporary", memory.temp),
            _row("peak", memory.peak),
        ]
    return lines


def _flops(plan: Plan) -> list[str]:
    least = plan.minimum
    lines = ["TFLOP of all devices (products and convolutions)"]
    parts = {"forward": least.forward, "backward": least.backward, "recomputed": least.recomputed}
    lines += [f"  {name:<24}{value / 1e12:>12,.3f}" for name, value in {**parts, "minimum": least.total}.items()]
    if plan.flops is not None:
        lines.append(f"  {'compiled':<24}{plan.flops / 1e12:>12,.3f}   {plan.flops / least.total:.3f} x the minimum")
    return lines


def _collectives(plan: Plan) -> list[str]:
    lines = [f"{'collectives of a device':<26}{'count':>8}{'results MiB':>14}{'sent MiB':>12}"]
    for kind, one in sorted(plan.collectives.items()):
        lines.append(f"  {kind:<24}{one.count:>8}{one.bytes / 2**20:>14,.1f}{one.traffic / 2**20:>12,.1f}")
    return lines if plan.collectives else ["collectives of a device: none"]


def _largest(plan: Plan) -> list[str]:
    lines = ["largest results of a device"]
    return lines + [f"  {one.bytes / 2**20:>10,.1f} MiB  {one.shape:<34}{one.source}" for one in plan.largest]


def _seconds(plan: Plan) -> list[str]:
    seconds = plan.seconds
    assert seconds is not None and plan.topology.chip is not None
    ideal = plan.minimum.total / plan.topology.devices / plan.topology.chip.flops
    parts = {"compute": seconds.compute, "memory": seconds.memory, "network": seconds.network}
    lines = ["roofline, ms a step if one resource were all that limits it"]
    lines += [f"  {name:<24}{value * 1e3:>12,.1f}" for name, value in parts.items()]
    lines.append(f"  {'at least':<24}{seconds.least * 1e3:>12,.1f}   {ideal / seconds.least:.0%} utilisation at most")
    if plan.topology.slices > 1:
        lines.append(
            "  the network between slices is slower than the links inside one, by which all exchanges are counted here"
        )
    return lines


def plan_values(plan: Plan) -> dict[str, Any]:
    """The plan as values that JSON has; sizes in bytes, times in seconds."""
    values = asdict(plan)
    values["simulated"] = plan.topology.chip is None
    values["minimum"]["total"] = plan.minimum.total
    if plan.flops is not None:
        values["flops_of_minimum"] = plan.flops / plan.minimum.total
    if plan.seconds is not None:
        values["seconds"]["least"] = plan.seconds.least
    return values


def _row(name: str, size: float | int) -> str:
    return f"  {name:<24}{_gib(size):>12}"


def _gib(size: float | int) -> str:
    return f"{size / GIB:.3f} GiB"
