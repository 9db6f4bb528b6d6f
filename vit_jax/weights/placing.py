"""From stored arrays to arrays on a mesh."""

from typing import Any

import jax
import numpy as np
from jax import Array

from vit_jax.weights.stored import AnyArray


def place(stored: Any, like: Any) -> Any:
    """Reads a tree of arrays onto the mesh; each process gives its devices' parts.

    Args:
      like: their shapes with shardings.
    """

    def read(array: AnyArray, spec: jax.ShapeDtypeStruct) -> Array:
        values = np.asarray(array)
        return jax.make_array_from_callback(
            values.shape, spec.sharding, lambda index: values[index]
        )

    return jax.tree.map(read, stored, like)
