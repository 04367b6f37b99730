"""One training step: the mathematics, and around it compilation, sharding and donation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tooncrafter_jax.diffusion.noise import GENERATOR
from tooncrafter_jax.nn.logical_axes import axis_rules
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.training.components import FlatParams
from tooncrafter_jax.training.optimizers import learning_rate, masked
from tooncrafter_jax.training.sharding import ACTIVATION_RULES, tree_shardings
from tooncrafter_jax.training.stages import Gradients, Metrics, Stage
from tooncrafter_jax.training.stages.stage import MODEL, Batch
from tooncrafter_jax.training.state import State, abstract_state, optimizers
from tooncrafter_jax.typing import AnyArray, PyTree
from tooncrafter_jax.weights.groups import GROUPS

Step = Callable[[State, Batch], tuple[State, Metrics]]


def make_step(stage: Stage, mesh: Mesh | None = None) -> Step:
    """The compiled training step: (state, global batch) -> (state, metrics). The state's buffers are given up to it."""

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        with nullcontext() if mesh is None else axis_rules(mesh, ACTIVATION_RULES), exact_float32(stage.config.dtype):
            return _step(stage, state, batch)

    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    shardings = tree_shardings(abstract_state(stage), mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, in_shardings=(shardings, None), out_shardings=(shardings, whole))


def make_validation(stage: Stage, mesh: Mesh | None = None) -> Callable[[FlatParams, Batch], Metrics]:
    """The compiled validation: (parameters, global batch) -> metrics, and as `clips` how many valid ones they are means
    of.
    """

    def validate(params: FlatParams, batch: Batch) -> Metrics:
        with nullcontext() if mesh is None else axis_rules(mesh, ACTIVATION_RULES), exact_float32(stage.config.dtype):
            return stage.validate(params, batch) | {"clips": jnp.sum(batch["valid"])}

    return jax.jit(validate, out_shardings=None if mesh is None else NamedSharding(mesh, PartitionSpec()))


def _step(stage: Stage, state: State, batch: Batch) -> tuple[State, Metrics]:
    """Gradients, one update by every optimizer, averages; nothing of it if loss or gradients are not finite."""
    config = stage.config
    found = accumulated_gradients(stage, state, batch)
    finite = jnp.isfinite(found.loss)
    trained, states = state.trained, {}
    metrics = found.metrics | {"loss": found.loss}
    if len(found.losses) > 1:
        metrics |= {f"loss/{name}": value for name, value in found.losses.items()}
    for name, optimizer in optimizers(stage).items():
        norm = optax.global_norm(found.by_optimizer[name])
        finite &= jnp.isfinite(norm)
        metrics[f"gradient_norm/{name}"] = norm
        everything = state.params
        gradients = masked(found.by_optimizer[name], everything)
        updates: PyTree
        updates, states[name] = optimizer.update(gradients, state.optimizer[name], everything)
        moved = {path: optax.apply_updates(trained[path], updates[path]) for path in found.by_optimizer[name]}
        trained = {**trained, **moved}
    metrics |= norms_by_group(found.by_optimizer[MODEL], "gradient_norm") | norms_by_group(trained, "parameter_norm")

    def keep(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

    count = state.updates.astype(jnp.float32)
    decay = jnp.minimum(config.ema_decay, (1 + count) / (10 + count))
    average = {path: decay * value + (1 - decay) * trained[path] for path, value in state.average.items()}
    skipped = (~finite).astype(jnp.int32)
    after = State(
        step=state.step + 1,
        trained=keep(trained, state.trained),
        frozen={**state.frozen, **keep(found.statistics, {path: state.frozen[path] for path in found.statistics})},
        optimizer=keep(states, state.optimizer),
        average=keep(average, state.average),
        skipped=state.skipped + skipped,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * skipped,
    )
    metrics |= {"skipped": after.skipped, "skipped_in_a_row": after.skipped_in_a_row}
    metrics["learning_rate"] = jnp.asarray(learning_rate(config.optimizer, config.steps)(state.updates))
    return after, metrics


def accumulated_gradients(stage: Stage, state: State, batch: Batch) -> Gradients:
    """Gradients of the batch, one micro-batch after another; losses, gradients and metrics are averaged."""
    count = stage.config.accumulation
    key = jax.random.fold_in(jax.random.key(stage.config.seed, impl=GENERATOR), state.step)
    params = state.params
    if count == 1:
        return stage.gradients(params, batch, key, state.step)
    # Row i of every device's share goes into micro-batch i, so that cutting the batch moves nothing between devices.
    parts = {name: jnp.moveaxis(rows.reshape(-1, count, *rows.shape[1:]), 1, 0) for name, rows in batch.items()}
    first = jax.tree.map(lambda rows: rows[0], parts)
    shapes = jax.eval_shape(lambda rows: stage.gradients(params, rows, key, state.step), first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes.losses, shapes.by_optimizer, shapes.metrics))

    def one(carry: PyTree, part: tuple[Batch, jax.Array]) -> tuple[PyTree, None]:
        total, statistics = carry
        rows, number = part
        found = stage.gradients(params | statistics, rows, jax.random.fold_in(key, number), state.step)
        share = (found.losses, found.by_optimizer, found.metrics)
        return (jax.tree.map(lambda a, b: a + b / count, total, share), found.statistics), None

    statistics = {path: params[path] for path in shapes.statistics}
    (total, statistics), _ = jax.lax.scan(one, (zeros, statistics), (parts, jnp.arange(count)))
    return Gradients(total[0], total[1], statistics, total[2])


def norms_by_group(values: Mapping[str, AnyArray], what: str) -> Metrics:
    """Global norm of the values of each parameter group that has any."""
    norms = {}
    for group, contains in GROUPS.items():
        inside = [value for path, value in values.items() if contains(path)]
        if inside:
            norms[f"{what}/{group}"] = optax.global_norm(inside)
    return norms
