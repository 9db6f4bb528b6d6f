"""Similarity of position embeddings: what a model knows of where patches are (figures 7, 10)."""

import jax.numpy as jnp
import numpy as np

from vit_jax.models.positions import scheme
from vit_jax.models.vit import ViT


def position_similarity(embeddings: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The cosine of the angle between the embeddings of any two patches.

    Args:
      embeddings: [patches, width], patches row by row, without a class token.
      grid: rows and columns of patches.

    Returns:
      float64 [rows, columns, rows, columns], from -1 to 1: the first two axes name one patch, the
      last two the other. An embedding of zeros is at a right angle to all others (0).
    """
    x = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    directions = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    return np.clip(directions @ directions.T, -1, 1).reshape(*grid, *grid)


def added_positions(model: ViT) -> np.ndarray:
    """What a model's scheme adds to its patches before the first block.

    Returns:
      float32 [patches, width]; zeros if the scheme adds nothing there.
    """
    config = model.config
    positions = scheme(config)
    params = {name: getattr(model, name)[...] for name in positions.parameters(config)}
    rows, columns = config.grid
    x = jnp.zeros((1, rows * columns, config.size.width))
    x = positions.on_patches(x, params, config)
    first = int(config.has_class_token)
    x = positions.on_tokens(jnp.pad(x, ((0, 0), (first, 0), (0, 0))), params, config)
    return np.asarray(x[0, first:], np.float32)
