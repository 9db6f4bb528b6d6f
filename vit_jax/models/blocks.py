"""Stacks of equal blocks, with stochastic depth and rematerialisation."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vit_jax.models.config import ModelConfig
from vit_jax.models.placement import Placement
from vit_jax.models.rematerialisation import block_input, rematerialised


def stack(make: Callable[[nnx.Rngs], nnx.Module], depth: int, *, rngs: nnx.Rngs) -> nnx.Module:
    """Blocks whose parameters are stacked on a new first axis, each block drawn on its own.

    Scanned and unrolled blocks are stacked alike, so weights and checkpoints fit both.
    """
    return nnx.split_rngs(splits=depth)(nnx.vmap(make))(rngs)


def run(
    blocks: nnx.Module,
    tokens: Array,
    config: ModelConfig,
    key: Array | None,
    placement: Placement,
    capture: Collection[str],
    before: Callable[[Array], Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Runs stacked blocks one after the other.

    Args:
      blocks: made by `stack`. One block maps (tokens, key, skip_rate, placement, capture) to the
          next tokens and a dict of what it captured.
      tokens: [batch, T, width].
      key: for dropout and stochastic depth; None turns them off.
      before: changes the tokens before each block, alike for all.

    Returns:
      The last tokens, and what was captured, stacked on a new first axis: the blocks' own captures,
      and `layers`, the blocks' outputs.
    """
    graphdef, stacked = nnx.split(blocks)
    depth = jax.tree.leaves(stacked)[0].shape[0]
    keys = None if key is None else jax.random.split(key, depth)
    # Linear in depth (How to train your ViT?, section 3.3): never the first block.
    skip_rates = jnp.linspace(0.0, config.stochastic_depth, depth)
    has_skips = config.stochastic_depth > 0

    def body(x: Array, layer: tuple[Any, Array | None, Array]) -> tuple[Array, dict[str, Array]]:
        params, layer_key, rate = layer
        block = nnx.merge(graphdef, params)
        x = block_input(x)
        x = x if before is None else before(x)
        x, captured = block(x, layer_key, rate if has_skips else None, placement, capture)
        x = placement.constrain(x)
        return x, captured | ({"layers": x} if "layers" in capture else {})

    # Common subexpressions cannot be merged across the iterations of a scan.
    body = rematerialised(body, config.remat, prevent_cse=not config.scan)
    unroll = 1 if config.scan else depth
    return jax.lax.scan(body, tokens, (stacked, keys, skip_rates), unroll=unroll)


def branch(
    norm: Callable[[Array], Array],
    layer: Callable[[Array], Array],
    x: Array,
    key: Array | None,
    *,
    skip_rate: Array | None,
    placement: Placement,
) -> Array:
    """The branch of a pre-norm block, layer(norm(x)), with stochastic depth.

    Args:
      x: tokens [batch, T, width].
      key: for stochastic depth.
      skip_rate: probability of skipping the branch, for each example; None never skips.

    Returns:
      [batch, T, width], to be added to `x`.
    """
    y = placement.gather_sequence(layer(placement.gather_sequence(norm(x))))
    return skip(y, key, skip_rate)


def skip(branch: Array, key: Array | None, rate: Array | None) -> Array:
    """Zeroes a branch for a share `rate` of the examples and scales the others up to match."""
    if key is None or rate is None:
        return branch
    kept = jax.random.bernoulli(key, 1 - rate, (branch.shape[0], 1, 1))
    return jnp.where(kept, branch / (1 - rate).astype(branch.dtype), 0)
