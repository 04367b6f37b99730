"""How many floating-point operations a function or a training step needs at least, counted in its mathematics.

Counted are matrix products and convolutions of the traced forward pass; a multiplication and an addition are two
operations, and places where a convolution meets its padding cost nothing. For each of them the backward pass needs as
many again

- for the gradient of its left operand, if that depends on trained parameters,
- for the gradient of its right operand, if that does,
- for computing it again, if it depends on them and lies in a checkpointed block whose policy does not keep its result.

So a trained layer costs 3 forward passes, a frozen layer behind trained ones 2, and a layer before all trained ones 1;
a checkpointed block costs one more. This is a lower bound on what any program of the step does, but for two things that
a compiler may leave out: the last products of a checkpointed block, which nothing in its backward pass asks for again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

import jax
from jax.extend import core

from tooncrafter_jax.typing import HasShape, PyTree, Scalar

Atom = core.Var | core.Literal
"""An input or output of an equation."""
Policy = Callable[..., object]
"""Of `jax.checkpoint`: which results a block keeps."""


@dataclass(frozen=True)
class Flops:
    """Operations of a step on all devices together.

    Attributes:
      forward: of the forward pass.
      backward: of the gradients.
      recomputed: of blocks that the backward pass computes again.
    """

    forward: float = 0.0
    backward: float = 0.0
    recomputed: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.forward + self.backward + self.recomputed

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.backward + other.backward, self.recomputed + other.recomputed)

    def __mul__(self, count: float | int) -> Flops:
        return Flops(self.forward * count, self.backward * count, self.recomputed * count)

    __rmul__ = __mul__


def step_flops(loss: Callable[..., Scalar], trained: PyTree, *others: PyTree) -> Flops:
    """The operations of a loss and its gradient with respect to `trained`.

    Args:
      loss: called as loss(trained, *others).
      trained: trees of arrays or their shapes.
      *others: the same; nothing in them is trained.
    """
    traced = _open(jax.make_jaxpr(loss)(trained, *others))
    depends = [True] * len(jax.tree.leaves(trained)) + [False] * len(jax.tree.leaves(others))
    return _walk(traced, depends, None)[0]


def forward_flops(function: Callable[..., PyTree], *args: PyTree) -> float:
    """The matrix products and convolutions of a function as it is traced."""
    traced = _open(jax.make_jaxpr(function)(*args))
    return _walk(traced, [False] * len(traced.invars), None)[0].forward


def _open(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> core.Jaxpr:
    """The equations of a program; releases of JAX differ in which programs are closed over constants."""
    return cast(core.Jaxpr, getattr(jaxpr, "jaxpr", jaxpr))


def _walk(jaxpr: core.Jaxpr, depends: Sequence[bool], policy: Policy | None) -> tuple[Flops, list[bool]]:
    """(operations, which outputs depend on trained parameters), given which inputs do."""
    known = dict(zip(jaxpr.invars, depends, strict=True))

    def is_dependent(atom: Atom) -> bool:
        return not isinstance(atom, core.Literal) and known.get(atom, False)

    total = Flops()
    for eqn in jaxpr.eqns:
        inputs = [is_dependent(atom) for atom in eqn.invars]
        found, outputs = _equation(eqn, inputs, policy)
        total += found
        known.update(zip(eqn.outvars, outputs, strict=True))
    return total, [is_dependent(atom) for atom in jaxpr.outvars]


def _equation(eqn: core.JaxprEqn, inputs: list[bool], policy: Policy | None) -> tuple[Flops, list[bool]]:
    name, params = eqn.primitive.name, eqn.params
    if name in ("dot_general", "conv_general_dilated"):
        forward = float((_of_dot if name == "dot_general" else _of_convolution)(eqn))
        again = policy is not None and any(inputs) and not _is_kept(eqn, policy)
        return Flops(forward, forward * sum(inputs[:2]), forward * again), [any(inputs)]
    if name == "scan":
        return _scan(eqn, inputs, policy)
    if name == "while":
        body = _open(params["body_jaxpr"])
        consts = params["cond_nconsts"]
        found, outputs = _walk(body, [any(inputs)] * len(body.invars), policy)
        return found, [any(inputs[consts:])] * len(outputs)
    if name == "cond":
        branches = [_walk(_open(branch), inputs[1:], policy) for branch in params["branches"]]
        largest = max((found for found, _ in branches), key=lambda found: found.total)
        return largest, [any(some) for some in zip(*(outputs for _, outputs in branches), strict=True)]
    if name == "stop_gradient":
        return Flops(), [False] * len(eqn.outvars)
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
    if inner is not None and name != "pallas_call":
        if name == "checkpoint" or name.startswith("remat"):  # remat, remat2, ...: its name changes with JAX's releases
            policy = params["policy"] or policy
        return _walk(_open(inner), inputs, policy)
    return Flops(), [any(inputs)] * len(eqn.outvars)


def _scan(eqn: core.JaxprEqn, inputs: list[bool], policy: Policy | None) -> tuple[Flops, list[bool]]:
    """The body, `length` times. Which of its arguments are constants, carried and sliced follows from the shapes alone:

    how an equation writes that down differs between releases of JAX (`num_consts` and `num_carry` up to 0.11, then
    trees).
    """
    body = _open(eqn.params["jaxpr"])
    carries = sum(
        len(_shape(outer)) == len(_shape(inner)) for outer, inner in zip(eqn.outvars, body.outvars, strict=True)
    )
    sliced = sum(len(_shape(outer)) != len(_shape(inner)) for outer, inner in zip(eqn.invars, body.invars, strict=True))
    consts = len(body.invars) - carries - sliced
    while True:
        found, outputs = _walk(body, inputs, policy)
        carried = [a or b for a, b in zip(inputs[consts : consts + carries], outputs[:carries], strict=True)]
        grown = [*inputs[:consts], *carried, *inputs[consts + carries :]]
        if grown == inputs:
            return found * eqn.params["length"], outputs
        inputs = grown


def _shape(atom: Atom) -> tuple[int, ...]:
    return cast(HasShape, atom.aval).shape


def _is_kept(eqn: core.JaxprEqn, policy: Policy) -> bool:
    kept = policy(eqn.primitive, *(atom.aval for atom in eqn.invars), **eqn.params)
    return bool(kept) if isinstance(kept, bool) else type(kept).__name__ != "RecomputeType"


def _of_dot(eqn: core.JaxprEqn) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    return 2.0 * prod(_shape(eqn.outvars[0])) * prod(_shape(eqn.invars[0])[axis] for axis in contracted)


def _of_convolution(eqn: core.JaxprEqn) -> float:
    lhs, rhs, out = _shape(eqn.invars[0]), _shape(eqn.invars[1]), _shape(eqn.outvars[0])
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    places = 1
    for i, (left, right, result) in enumerate(
        zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    ):
        places *= meeting_places(
            lhs[left],
            rhs[right],
            out[result],
            stride=params["window_strides"][i],
            padding=params["padding"][i][0],
            lhs_dilation=params["lhs_dilation"][i],
            rhs_dilation=params["rhs_dilation"][i],
        )
    per_place = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * rhs[numbers.rhs_spec[1]]
    return 2.0 * places * per_place


def meeting_places(
    size: int, window: int, outputs: int, *, stride: int, padding: int, lhs_dilation: int = 1, rhs_dilation: int = 1
) -> int:
    """In how many pairs (output, place in the window) of one axis the window meets a real input, not padding or a
    hole.
    """
    last = (size - 1) * lhs_dilation
    count = 0
    for place in range(window):
        offset = place * rhs_dilation - padding
        if lhs_dilation == 1:
            first = max(0, -(offset // stride))
            beyond = min(outputs, (last - offset) // stride + 1)
            count += max(0, beyond - first)
        else:
            found = (output * stride + offset for output in range(outputs))
            count += sum(0 <= index <= last and index % lhs_dilation == 0 for index in found)
    return count
