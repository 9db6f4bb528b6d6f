"""What the backward pass recomputes instead of keeping it from the forward pass."""

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
    """Marks the input of a block or residual unit, so that policies can name it."""
    return checkpoint_name(x, _INPUT)


def rematerialised(
    block: Callable[..., Any], remat: Remat, *, prevent_cse: bool = True
) -> Callable[..., Any]:
    """Returns the same function, which keeps less for the backward pass.

    Args:
      remat: `none` keeps everything the backward pass needs; `dots` keeps products of activations
        with parameters; `block` keeps only the block's input; `offload` keeps the input in the
        host's memory.
      prevent_cse: keeps the compiler from undoing it; not needed in the body of a loop.
    """
    if remat == "none":
        return block
    return jax.checkpoint(block, policy=_POLICIES[remat], prevent_cse=prevent_cse)
