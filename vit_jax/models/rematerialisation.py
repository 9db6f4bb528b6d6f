"""What the backward pass recomputes instead of keeping it from the forward pass."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name

Remat = Literal["none", "dots", "block", "offload"]

_INPUT, _PRODUCT = "block_input", "product"

# Operations on single elements, and those that only order them anew. Compilers fuse them with what
# reads their results, so that computing them again costs less than writing and reading results.
_CHEAP = frozenset(
    {
        *("add", "add_any", "sub", "mul", "div", "neg", "abs", "sign", "max", "min"),
        *("exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "erf", "erfc"),
        *("sqrt", "rsqrt", "square", "pow", "integer_pow", "select_n", "convert_element_type"),
        *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice"),
    }
)


def _costly(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether results of an operation are kept: products, sums, maxima, masks of dropout."""
    return primitive.name not in _CHEAP


_POLICIES: dict[Remat, Callable[..., Any]] = {
    "none": _costly,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(_PRODUCT),
    ),
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


def product_result(x: Array) -> Array:
    """Marks a product with a parameter whose gradient is our own, which hides it from policies."""
    return checkpoint_name(x, _PRODUCT)


def rematerialised(
    block: Callable[..., Any], remat: Remat, *, prevent_cse: bool = True
) -> Callable[..., Any]:
    """Returns the same function, which keeps less for the backward pass.

    Args:
      remat: `none` keeps everything the backward pass needs, except what is computed from it
        element by element, such as outputs of norms and GELUs; `dots` keeps products of activations
        with parameters; `block` keeps only the block's input; `offload` keeps the input in the
        host's memory.
      prevent_cse: keeps the compiler from undoing it; not needed in the body of a loop.
    """
    # Outside of loops the compiler may well keep what is cheap to compute, where that is faster.
    prevent_cse = prevent_cse and remat != "none"
    return jax.checkpoint(block, policy=_POLICIES[remat], prevent_cse=prevent_cse)
