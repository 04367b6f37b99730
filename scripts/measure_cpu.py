"""The CPU's attention, convolutions and linear layers against PyTorch's, shape by shape, as a table.

  python scripts/measure_cpu.py [--only=decoder] [--kind=attention] [--limit=5]

The published denoiser (16 frames, one guidance branch) and decoder (4 frames with both references) are traced at
320x512, and every distinct call is timed as the layer makes it, against `torch.nn.functional` on arrays of the same
sizes: float32, in alternation, the fastest round of each. Convolutions of PyTorch are timed on contiguous arrays, as
the published code has them, and in channels-last; those over time are `conv3d`. Totals are sums of time times count;
norms, activations and copies between the calls are left out. An idle machine needs about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.models import autoencoder, decoder_parts, unet_blocks
from tooncrafter_jax.models.configuration import ModelConfig, tooncrafter_512
from tooncrafter_jax.nn import cpu_gradients, products
from tooncrafter_jax.nn.attention import attention
from tooncrafter_jax.runtime.compiler_options import compiler_options

KINDS = ("attention", "convolution", "linear")
NETWORKS = ("unet", "decoder")
SIDES = ("ours", "torch")
HEIGHT, WIDTH = 320, 512
DENOISED, DECODED = 16, 4
"""Frames: of a clip of the published model, and as many as are decoded at a time by default."""
GUESSED_SPEED = 200e9
"""Operations a second of two cores, from which it is told beforehand how long all will take."""
ALIGNMENT = 64
"""Bytes."""
MEASURED_FOR_MEMORY = 3
"""Calls of each kind, those with the largest arrays, that a process runs to have its peak memory measured."""


class Call(NamedTuple):
    """A kind of call that a network makes: equal ones are timed once.

    Attributes:
      kind: of `KINDS`.
      shapes: of the arrays: queries, keys and values; input and kernel.
      strides, padding: of a convolution.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        first, second = self.shapes[:2]
        if self.kind == "attention":
            return 4 * prod(first) * second[1]
        if self.kind == "linear":
            return 2 * prod(first) * second[-1]
        out = [
            (size + sum(pad) - kernel) // stride + 1
            for size, pad, kernel, stride in zip(first[1:3], self.padding, second[:2], self.strides, strict=True)
        ]
        return 2 * first[0] * prod(out) * prod(second)

    @property
    def numbers(self) -> int:
        """How many numbers its inputs hold."""
        return sum(map(prod, self.shapes))

    def __str__(self) -> str:
        return " · ".join("×".join(map(str, shape)) for shape in self.shapes[:2]) + (
            f" /{self.strides[0]}" if set(self.strides) - {1} else ""
        )


@dataclass
class Calls:
    """What a traced network calls.

    Attributes:
      counts: how often.
      run: the layer's own function of the arrays.
    """

    counts: dict[Call, int] = field(default_factory=dict)
    run: dict[Call, Callable[..., jax.Array]] = field(default_factory=dict)

    def note(self, call: Call, run: Callable[..., jax.Array]) -> None:
        """Counts a call."""
        self.counts[call] = self.counts.get(call, 0) + 1
        self.run[call] = run


@contextlib.contextmanager
def recording() -> Iterator[Calls]:
    """Notes down what networks that are traced inside call."""
    calls = Calls()
    convolution, linear = products.convolution, cpu_gradients.linear

    def noting_attention(*x: jax.Array, **settings: Any) -> jax.Array:
        calls.note(Call("attention", tuple(part.shape for part in x)), partial(attention, **settings))
        return attention(*x, **settings)

    def noting_convolution(product: Any, x: jax.Array, kernel: jax.Array, window: Any, rows: Any) -> jax.Array:
        run = lambda x, kernel: convolution(product, x, kernel, window, rows)  # noqa: E731
        calls.note(Call("convolution", (x.shape, kernel.shape), *window), run)
        return run(x, kernel)

    def noting_linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        rows = (prod(x.shape[:-1]), x.shape[-1])
        calls.note(Call("linear", (rows, kernel.shape)), lambda x, kernel: linear(x, kernel, None))
        return linear(x, kernel, bias)

    with contextlib.ExitStack() as stack:
        for module in (autoencoder, decoder_parts, unet_blocks):
            stack.enter_context(mock.patch.object(module, "attention", noting_attention))
        stack.enter_context(mock.patch.object(products, "convolution", noting_convolution))
        stack.enter_context(mock.patch.object(cpu_gradients, "linear", noting_linear))
        yield calls


def calls_of(name: str, config: ModelConfig, height: int, width: int) -> Calls:
    """What a network calls for pictures of height x width, from a trace of it.

    Args:
      name: of `NETWORKS`.
      config: the model's.
      height: in pixels.
      width: in pixels.
    """
    networks, shape = config.networks(), partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    network, downscaling = networks[name], config.autoencoder.downscaling
    latents = (height // downscaling, width // downscaling)
    if name == "unet":
        tokens = unet_blocks.TEXT_TOKENS + unet_blocks.IMAGE_TOKENS_PER_FRAME * DENOISED
        keys = jax.eval_shape(
            lambda p, context: network.bind(p).context_keys(context, DENOISED),
            network.abstract_params,
            shape((1, tokens, config.unet.context_dim)),
        )
        x, one = shape((1, DENOISED, *latents, config.unet.in_channels)), jax.ShapeDtypeStruct((1,), jnp.int32)
        with recording() as calls:
            jax.eval_shape(lambda p, *args: network.bind(p)(*args), network.abstract_params, x, one, keys, one)
        return calls
    encoder = networks["autoencoder"]
    _, hidden = jax.eval_shape(
        lambda p, x: encoder.bind(p)(x), encoder.abstract_params, shape((1, 2, height, width, 3))
    )
    references = jax.eval_shape(
        lambda p, hidden: network.bind(p).prepare_references(hidden), network.abstract_params, hidden
    )
    x = shape((1, DECODED, *latents, config.decoder.latent_channels))
    with recording() as calls:
        jax.eval_shape(lambda p, x, r: network.bind(p)(x, r), network.abstract_params, x, references)
    return calls


def drawn(call: Call) -> list[np.ndarray]:
    """Arrays for a call; kernels are scaled so that results have about unit size. Neither side copies them."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(out=aligned(shape), dtype=np.float32) for shape in call.shapes]
    if call.kind != "attention":
        arrays[1] /= np.sqrt(prod(call.shapes[1][:-1]))
    return arrays


def aligned(shape: Sequence[int]) -> np.ndarray:
    """An empty array that begins where JAX can take it without a copy."""
    size = 4 * prod(shape)
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + size].view(np.float32).reshape(shape)


def ours(call: Call, run: Callable[..., jax.Array], arrays: Sequence[np.ndarray]) -> Callable[[], np.ndarray]:
    """Runs a call as the layer does."""
    inputs = [jnp.asarray(x) for x in arrays]
    program = jax.jit(run, compiler_options=compiler_options(jax.devices()[0])).lower(*inputs).compile()
    return lambda: np.asarray(jax.block_until_ready(program(*inputs)))  # on the CPU no copy


def torches(call: Call, arrays: Sequence[np.ndarray], *, channels_last: bool = False) -> Callable[[], np.ndarray]:
    """Runs a call with PyTorch, on arrays laid out beforehand; results are viewed in our order of axes."""
    import torch
    from torch.nn import functional

    def without_gradients(run: Callable[[], torch.Tensor]) -> Callable[[], np.ndarray]:
        def result() -> np.ndarray:
            with torch.inference_mode():
                return run().numpy()

        return result

    x, *others = (torch.from_numpy(array) for array in arrays)
    if call.kind == "linear":
        weight = others[0].T.contiguous()
        return without_gradients(lambda: functional.linear(x, weight))
    if call.kind == "attention":
        q, k, v = (part.transpose(1, 2).contiguous() for part in (x, *others))
        k, v = (part.expand(q.shape[0], -1, -1, -1) for part in (k, v))
        return without_gradients(lambda: functional.scaled_dot_product_attention(q, k, v).transpose(1, 2))
    sides = [pad for axis in reversed(call.padding) for pad in axis]
    symmetric = all(before == after for before, after in call.padding)
    padding = [before for before, _ in call.padding] if symmetric else [0, 0]
    x, kernel = x.permute(0, 3, 1, 2), others[0].permute(3, 2, 0, 1)
    if call.shapes[1][1] == 1 and call.shapes[1][0] > 1:  # over time
        video = x[..., None].contiguous(
            memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format
        )
        kernel = kernel[..., None].contiguous()
        return without_gradients(
            lambda: functional.conv3d(video, kernel, padding=(*padding, 0))[..., 0].permute(0, 2, 3, 1)
        )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pictures, kernel = x.contiguous(memory_format=layout), kernel.contiguous(memory_format=layout)

    def convolved() -> torch.Tensor:
        padded = pictures if symmetric else functional.pad(pictures, sides)
        return functional.conv2d(padded, kernel, stride=call.strides, padding=padding).permute(0, 2, 3, 1)

    return without_gradients(convolved)


class Measured(NamedTuple):
    """A row of the table; seconds of a call.

    Attributes:
      ours, torch, channels_last: the last one equals `torch` for what is no convolution.
      error: largest difference of results, over the deviation of PyTorch's.
    """

    call: Call
    calls: int
    ours: float
    torch: float
    channels_last: float
    error: float


def measured(call: Call, count: int, run: Callable[..., jax.Array], rounds: int) -> Measured:
    """Times a call in alternation; the round before the first warms up and compares."""
    arrays = drawn(call)
    runs = {"ours": ours(call, run, arrays), "torch": torches(call, arrays)}
    if call.kind == "convolution":
        runs["channels_last"] = torches(call, arrays, channels_last=True)
    mine, other = runs["ours"](), runs["torch"]()
    error = float(np.abs(mine - other).max() / other.std())
    del mine, other
    if "channels_last" in runs:
        runs["channels_last"]()
    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for name, once in runs.items():
            start = time.perf_counter()
            once()
            seconds[name] = min(seconds.get(name, np.inf), time.perf_counter() - start)
    return Measured(call, count, **{"channels_last": seconds["torch"], **seconds}, error=error)


HEADER = """| | shape | times | ours, ms | torch, ms | channels last, ms | ours / torch | ours / channels last | GFLOP/s: ours | torch | channels last | error |
|---|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def line(what: str, shape: str, count: int, operations: int, row: Sequence[float], error: float) -> str:
    """A line of the table."""
    own, torch, channels_last = row
    speeds = (operations / seconds / 1e9 for seconds in row)
    cells = [what, shape, str(count), *(f"{1e3 * seconds:.1f}" for seconds in row)]
    cells += [f"{own / torch:.2f}", f"{own / channels_last:.2f}", *(f"{speed:.0f}" for speed in speeds), f"{error:.0e}"]
    return f"| {' | '.join(cells)} |"


def total(what: str, rows: Sequence[Measured]) -> str:
    """The line of a sum."""
    sums = [sum(row.calls * getattr(row, side) for row in rows) for side in ("ours", "torch", "channels_last")]
    operations = sum(row.calls * row.call.operations for row in rows)
    return line(what, "", sum(row.calls for row in rows), operations, sums, max(row.error for row in rows))


def chosen(calls: Calls, kinds: Sequence[str], limit: int | None) -> list[Call]:
    """The distinct calls of these kinds, those that take most operations in all first."""
    of_kinds = [call for call in calls.counts if call.kind in kinds]
    return sorted(of_kinds, key=lambda call: -call.operations * calls.counts[call])[:limit]


def peak_memory(name: str, side: str) -> int:
    """Bytes that a process's largest calls add to what it holds before; to be run in a process of its own."""
    if side == "torch":
        import torch.nn.functional  # noqa: F401
    calls = calls_of(name, tooncrafter_512(), HEIGHT, WIDTH)
    before = resident("VmRSS")
    for kind in KINDS:
        of_kind = chosen(calls, [kind], None)
        for call in sorted(of_kind, key=lambda call: -call.numbers)[:MEASURED_FOR_MEMORY]:
            arrays = drawn(call)
            (ours(call, calls.run[call], arrays) if side == "ours" else torches(call, arrays))()
    return resident("VmHWM") - before


def resident(what: str) -> int:
    """Bytes of this process's memory: VmRSS of now, VmHWM the most so far. (What `resource` calls the most is at least
    that of the process that began this one.)
    """
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(f"{what}:"))
    return 1024 * int(line.split()[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=NETWORKS, help="one of the networks")
    parser.add_argument("--kind", choices=KINDS, help="one kind of call")
    parser.add_argument("--limit", type=int, help="so many calls of each network, those that take most operations")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is timed (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="of both sides (default: 2)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Prints the tables."""
    parser = _parser()
    options = parser.parse_args()
    if min(options.limit or 1, options.rounds, options.threads) < 1 or options.limit == 0:
        parser.error("--limit, --rounds and --threads must be at least 1")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])  # XLA has a thread for each processor
    jax.config.update("jax_platforms", "cpu")
    import torch

    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(peak_memory(options.only, options.memory_of)))
        return
    names = [options.only] if options.only else list(NETWORKS)
    kinds = [options.kind] if options.kind else list(KINDS)
    of_network = {name: calls_of(name, tooncrafter_512(), HEIGHT, WIDTH) for name in names}
    rows = {name: chosen(calls, kinds, options.limit) for name, calls in of_network.items()}
    work = sum(c.operations * (3 if c.kind == "convolution" else 2) for calls in rows.values() for c in calls)
    minutes = work * (options.rounds + 1) / GUESSED_SPEED / 60
    print(f"{sum(map(len, rows.values()))} distinct calls, about {minutes:.0f} minutes\n", file=sys.stderr)
    for name, calls in of_network.items():
        print(f"\n### {name}\n\n{HEADER}", flush=True)
        done: list[Measured] = []
        for call in rows[name]:
            row = measured(call, calls.counts[call], calls.run[call], options.rounds)
            done.append(row)
            times = (row.ours, row.torch, row.channels_last)
            print(line(call.kind, str(call), row.calls, call.operations, times, row.error), flush=True)
        for kind in kinds:
            if of_kind := [row for row in done if row.call.kind == kind]:
                print(total(f"**all {kind}**", of_kind))
        print(total("**all**", done), flush=True)
        if not options.no_memory:
            for side in SIDES:
                own = [
                    sys.executable,
                    __file__,
                    f"--only={name}",
                    f"--memory-of={side}",
                    f"--threads={options.threads}",
                ]
                done_by = subprocess.run(own, capture_output=True, text=True, check=True)
                print(f"\npeak memory of the largest calls, {side}: {int(done_by.stdout) / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
