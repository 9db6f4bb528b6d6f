"""Position embeddings that are added to the tokens at the stem."""

import jax.numpy as jnp
from jax import Array


def sincos2d(grid: tuple[int, int], width: int, temperature: float = 10_000.0) -> Array:
    """Fixed 2-D sine-cosine embeddings (Better plain ViT baselines, arXiv 2205.01580).

    A quarter of the channels each for sin x, cos x, sin y and cos y at `width / 4` frequencies,
    `temperature ** -(i / (width / 4 - 1))`.

    Args:
      grid: rows and columns of patches.
      width: channels, a multiple of 4.

    Returns:
      float32 [1, rows * columns, width], values in [-1, 1].
    """
    rows, columns = grid
    y, x = jnp.mgrid[:rows, :columns]
    quarter = width // 4
    omega = temperature ** -(jnp.arange(quarter) / max(quarter - 1, 1))
    x_angle = x.reshape(-1, 1) * omega
    y_angle = y.reshape(-1, 1) * omega
    waves = [jnp.sin(x_angle), jnp.cos(x_angle), jnp.sin(y_angle), jnp.cos(y_angle)]
    return jnp.concatenate(waves, axis=1)[None]
