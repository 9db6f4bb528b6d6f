"""What the backward pass computes again instead of keeping it from the forward pass."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name

Remat = Literal["none", "dots", "block", "offload"]

_INPUT = "block_input"
_POLICIES: dict[Remat, Callable[..., Any]] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "block": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def block_input(x: Array) -> Array:
    """Marks what a block or residual unit starts from, for the policies to know it."""
    return checkpoint_name(x, _INPUT)


def rematerialised(
    block: Callable[..., Any], remat: Remat, *, prevent_cse: bool = True
) -> Callable[..., Any]:
    """The same function, which keeps as much for the backward pass as the policy says.

    Args:
      remat: `none` keeps all that it needs; `dots` the products of activations with parameters;
        `block` nothing but the block's input; `offload` the same, in the memory of the host.
      prevent_cse: whether the compiler could undo it; not in the body of a loop.
    """
    if remat == "none":
        return block
    return jax.checkpoint(block, policy=_POLICIES[remat], prevent_cse=prevent_cse)
