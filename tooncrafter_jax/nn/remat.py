"""What the backward pass keeps of each block and what it computes again (rematerialisation).

A network calls its big blocks through `run_block`. Outside `remat_policy` that is a plain call; inside, the block is
checkpointed by the policy in force, so that a model file never chooses between memory and time.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name

from tooncrafter_jax.typing import FloatArray, PyTree

Result = TypeVar("Result")
RematPolicy = Literal["none", "blocks", "dots", "offload"]
"""`none`: everything is kept. `blocks`: only the blocks' inputs. `dots`: also the results of matrix products with
weights. `offload`: the blocks' inputs, in the host's memory (TPU and GPU).
"""

_BLOCK_INPUT = "block_input"
_active: contextvars.ContextVar[RematPolicy] = contextvars.ContextVar("remat_policy", default="none")


@contextlib.contextmanager
def remat_policy(policy: RematPolicy) -> Iterator[None]:
    """Checkpoints every block by this policy while a function is traced."""
    token = _active.set(policy)
    try:
        yield
    finally:
        _active.reset(token)


def run_block(block: Callable[..., Result], x: FloatArray, *args: PyTree) -> Result:
    """block(x, *args), checkpointed by the policy in force; weights that `block` closes over are never copied.

    Args:
      block: the computation.
      x: its main input.
      *args: other arrays, or trees of them.
    """
    policy = _active.get()
    if policy == "none":
        return block(x, *args)

    def named(x: FloatArray, *args: PyTree) -> Result:
        return block(checkpoint_name(x, _BLOCK_INPUT), *args)

    return jax.checkpoint(named, policy=_POLICIES[policy]())(x, *args)


_POLICIES: dict[str, Callable[[], Callable[..., Any]]] = {
    "blocks": lambda: jax.checkpoint_policies.nothing_saveable,
    "dots": lambda: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "offload": lambda: jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[_BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
