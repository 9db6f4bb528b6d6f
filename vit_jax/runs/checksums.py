"""Checksums of arrays, which depend on the values alone and not on the mesh."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def summarize(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checksum and finiteness of every leaf, in leaf order.

    Both are computed where the arrays lie. If there are several processes, all must call this.

    Returns:
      uint32 [arrays, 2] and bool [arrays].
    """
    leaves = jax.tree.leaves(state)
    checksums, finite = jax.device_get(_summarize_leaves(leaves))
    return np.asarray(checksums), np.asarray(finite)


@jax.jit
def _summarize_leaves(leaves: list[Array]) -> tuple[Array, Array]:
    first, second, finite = zip(*map(_summarize_leaf, leaves), strict=True)
    return jnp.stack([jnp.stack(first), jnp.stack(second)], axis=1), jnp.stack(finite)


def _summarize_leaf(x: Array) -> tuple[Array, Array, Array]:
    """Two sums modulo 2**32 of the array's words, each mixed with its index; and finiteness.

    Mixing is one-to-one, so a change within one word always shows. It spreads every bit, so flips
    of the same bit in several words do not cancel. Integer sums are the same in any order, so they
    are the same on any mesh.
    """
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis, length in enumerate(x.shape):
        index = index * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    first, second = (_mix(bits + index * jnp.uint32(m)) for m in (0x9E3779B1, 0x85EBCA77))
    zero = jnp.uint32(0)
    # As one reduction, which reads the array once. The run waits for it.
    found: tuple[Array, Array, Array] = jax.lax.reduce(
        (first, second, jnp.isfinite(x)),
        (zero, zero, jnp.bool_(True)),
        lambda a, b: (a[0] + b[0], a[1] + b[1], a[2] & b[2]),
        tuple(range(x.ndim)),
    )
    return found


def _mix(words: Array) -> Array:
    """The finalizer of MurmurHash3: each bit of a uint32 changes about half of the result."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def names(state: Any) -> list[str]:
    """The paths of a tree's leaves, in leaf order."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
