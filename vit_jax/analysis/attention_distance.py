"""Mean attention distance: how far from a patch a head looks, in pixels (appendix D.7)."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

# NumPy's arrays give NumPy's; JAX's give JAX's, also within a program.
_A = TypeVar("_A", np.ndarray, jax.Array)


def grid_distances(grid: tuple[int, int], patch_size: float) -> np.ndarray:
    """Distances between the centres of patches, in pixels.

    Args:
      grid: rows and columns of patches.
      patch_size: pixels from one patch to the next.

    Returns:
      float32 [patches, patches], patches row by row.
    """
    places = np.indices(grid).reshape(2, -1).T * patch_size
    steps = places[:, None] - places[None]
    return np.sqrt((steps**2).sum(axis=-1)).astype(np.float32)


def attention_distances(
    attention: _A, grid: tuple[int, int], patch_size: float, *, has_class_token: bool
) -> _A:
    """The distance from each patch to what it attends to, by head, for figures 7 and 11.

    Each distance counts by its weight of attention; the mean is over the patches that ask. Class
    token and registers are left out on both sides, and what is left of the weights is not
    normalised again, as in the authors' code (google-research/vision_transformer#162). So a head
    that attends to the class token alone has distance 0.

    Args:
      attention: [depth, batch, heads, T, T], as `capture=("attention",)` gives it.
      grid: rows and columns of patches; `ModelConfig.grid`.
      patch_size: pixels of a patch; `ModelConfig.patch_size`, also of a hybrid.
      has_class_token: whether the first token is no patch; `ModelConfig.has_class_token`.

    Returns:
      float32 [batch, depth, heads], in pixels of the model's input.
    """
    xp: Any = jnp if isinstance(attention, jax.Array) else np
    first, patches = int(has_class_token), grid[0] * grid[1]
    own = slice(first, first + patches)
    weights = attention[..., own, own].astype(np.float32)
    distances = (weights * grid_distances(grid, patch_size)).sum(axis=-1).mean(axis=-1)
    return xp.moveaxis(distances, 0, 1)
