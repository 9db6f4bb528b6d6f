"""Attention alone, forward and backward, by a function of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.peers.case import SHOWN, Case


class AttentionAlone:
    """The gradient of the sum of what attention gives, for queries, keys and values.

    Args:
      attend: (query, key, value) -> mixed values, all [batch, T, heads, size].
    """

    def __init__(self, case: Case, attend: Callable[..., Array]):
        def total(heads: list[Array]) -> tuple[Array, Array]:
            mixed = attend(*heads)
            return mixed.astype(jnp.float32).sum(), mixed

        dtype = jnp.dtype(case.config.dtype)
        self._heads = [jax.device_put(x.astype(dtype)) for x in case.heads()]
        self._gradient = jax.jit(jax.grad(total, has_aux=True))

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        for _ in range(count):
            result: Any = self._gradient(self._heads)
        jax.block_until_ready(result)
        return np.asarray(result[1], np.float32)[0, 0, 0, :SHOWN].tolist()
