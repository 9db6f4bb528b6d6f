"""Optimizers that see each block's part of a stacked parameter as a parameter of its own."""

from typing import Any

import jax
import optax

from vit_jax.models.functional import Params
from vit_jax.parameters import Table, described, path_of

_FROZEN, _SINGLE, _STACKED = "frozen", "single", "stacked"


def by_block(
    transformation: optax.GradientTransformation, params: Params, table: Table, trains: Any
) -> optax.GradientTransformation:
    """Applies a transformation to the parameters, and to those of equal blocks block by block.

    The blocks of a model are stacked on a first axis, which a transformation would take for one
    of its matrices' own: factored moments would mix blocks, and the norm of a parameter would be
    that of all blocks at once. What it keeps for stacked parameters, counters too, is stacked as
    they are.

    Args:
      transformation: of each parameter on its own; nothing in it is of all parameters at once.
      params: arrays, or their shapes.
      table: describes each of them.
      trains: in the tree of the parameters, whether each one trains. The others pass unchanged and
        have no state.
    """

    def label(path: tuple[Any, ...], leaf: Any, is_trained: bool) -> str:
        if not is_trained:
            return _FROZEN
        is_stacked = described(table, path_of(path), leaf.ndim).is_stacked
        return f"{_STACKED}_{leaf.shape[0]}" if is_stacked else _SINGLE

    labels = jax.tree_util.tree_map_with_path(label, params, trains)
    stacked = optax.GradientTransformation(
        jax.vmap(transformation.init), jax.vmap(transformation.update)
    )
    kinds = {_FROZEN: optax.identity(), _SINGLE: transformation}
    return optax.partition(
        {name: kinds.get(name, stacked) for name in sorted(set(jax.tree.leaves(labels)))}, labels
    )
