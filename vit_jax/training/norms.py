"""Norms of gradients, parameters and updates by part of the model, as an option of the log."""

from collections.abc import Sequence
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vit_jax.models.functional import Params
from vit_jax.parameters import Part, Table, described, path_of
from vit_jax.training.objectives import OWN
from vit_jax.training.rates import rate_factors

# In the order of the forward pass, and what an objective learns of its own after it.
_ORDER = (*get_args(Part), OWN)


class PartNorms:
    """Norms over the arrays of each part, and of each block on its own where blocks are stacked.

    Args:
      params: those to train, or their shapes.
      table: describes each of them.
      freeze: patterns of parameters that do not train; their gradients do not count.

    Attributes:
      names: such as `stem`, `position`, `block_00`, `norm`, `head`.
    """

    def __init__(self, params: Params, table: Table, freeze: Sequence[str]):
        leaves, _ = jax.tree_util.tree_flatten_with_path(params)
        paths = [path_of(key_path) for key_path, _ in leaves]
        self._parts = [
            OWN if path.split("/")[0] == OWN else described(table, path, leaf.ndim).part
            for path, (_, leaf) in zip(paths, leaves, strict=True)
        ]
        self._by_block = [
            part == "block" and table[path].is_stacked
            for path, part in zip(paths, self._parts, strict=True)
        ]
        factors = rate_factors(params, table, freeze=freeze, rates=(), layer_decay=None)
        self._trained = [factor > 0 for factor in jax.tree.leaves(factors)]
        shapes = jax.eval_shape(lambda tree: self._squares(jax.tree.leaves(tree)), params)
        # JAX sorts the keys of a dict.
        lengths = {part: len(shapes[part]) for part in _ORDER if part in shapes}
        self.names = tuple(name for part, n in lengths.items() for name in _names(part, n))

    def __call__(self, grads: Params, params: Params, updates: Params) -> Array:
        """The norms of a step.

        Args:
          grads: mean gradients before clipping.
          params: before the update.

        Returns:
          float32 [3, parts], in the order of `names`; of logical arrays, whatever the mesh.
        """
        counted = [
            grad if trained.all() else jnp.where(trained, grad, 0)
            for grad, trained in zip(jax.tree.leaves(grads), self._trained, strict=True)
        ]
        of_each = (counted, jax.tree.leaves(params), jax.tree.leaves(updates))
        rows = [jnp.concatenate(list(self._squares(leaves).values())) for leaves in of_each]
        return jnp.sqrt(jnp.stack(rows))

    def scalars(self, norms: np.ndarray) -> dict[str, float]:
        """What a call returned, by names such as `norms/grad/block_00`."""
        return {
            f"norms/{kind}/{name}": float(value)
            for kind, row in zip(("grad", "param", "update"), norms, strict=True)
            for name, value in zip(self.names, row, strict=True)
        }

    def _squares(self, leaves: Sequence[Array]) -> dict[str, Array]:
        """Sums of squares by part: float32 [blocks], or [1] for a part without."""
        found: dict[str, Array] = {}
        for leaf, part, by_block in zip(leaves, self._parts, self._by_block, strict=True):
            first = 1 if by_block else 0
            axes = tuple(range(first, leaf.ndim))
            sums = jnp.square(leaf.astype(jnp.float32)).sum(axes).reshape(-1)
            found[part] = found[part] + sums if part in found else sums
        return {part: found[part] for part in _ORDER if part in found}


def _names(part: str, length: int) -> list[str]:
    if part != "block":
        return [part]
    digits = max(2, len(str(length - 1)))
    return [f"block_{number:0{digits}}" for number in range(length)]
