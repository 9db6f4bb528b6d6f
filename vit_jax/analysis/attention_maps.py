"""Attention rollout (arXiv 2005.00928, section 3): how much of each patch reaches the output."""

from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

# NumPy's arrays give NumPy's; JAX's give JAX's, also within a program.
_A = TypeVar("_A", np.ndarray, jax.Array)

# What is left of an image's brightness where attention is 0.
_DARKEST = 0.15


def rollout(attention: _A) -> _A:
    """Multiplies the attention of all blocks, averaged over heads.

    Residual connections count half: each block's matrix is (A + 1) / 2, whose rows sum to 1, as in
    section 3 of arXiv 2005.00928. The paper's appendix D.8 uses it for its figures 6 and 14.

    Args:
      attention: [depth, batch, heads, T, T], as `capture=("attention",)` gives it.

    Returns:
      float32 [batch, T, T]: row i has the shares of the first block's tokens in token i of the
      last block; rows sum to 1.
    """
    xp: Any = jnp if isinstance(attention, jax.Array) else np
    product = partial(jnp.matmul, precision="highest") if xp is jnp else np.matmul
    mixed = attention.astype(np.float32).mean(axis=2)
    identity = xp.eye(mixed.shape[-1], dtype=np.float32)
    total = xp.broadcast_to(identity, mixed.shape[1:])
    for block in mixed:
        total = product((block + identity) / 2, total)
    return total


def attention_maps(attention: _A, grid: tuple[int, int], *, has_class_token: bool) -> _A:
    """What the model's output sees of each patch, by rollout.

    Args:
      attention: as in `rollout`.
      grid: rows and columns of patches; `ModelConfig.grid`.
      has_class_token: whether the output is read from the first token; otherwise it is the mean
        over the patches. `ModelConfig.has_class_token`.

    Returns:
      float32 [batch, rows, columns]; each map's largest value is 1.
    """
    total = rollout(attention)
    first, patches = int(has_class_token), grid[0] * grid[1]
    own = slice(first, first + patches)
    shares = total[:, 0, own] if has_class_token else total[:, own, own].mean(axis=1)
    maps = shares.reshape(-1, *grid)
    return maps / maps.max(axis=(1, 2), keepdims=True)


def overlay(pixels: np.ndarray, attention: np.ndarray) -> Image.Image:
    """An image, darkened where attention is low.

    Args:
      pixels: uint8 [height, width, 3].
      attention: float [rows, columns], in [0, 1].
    """
    height, width = pixels.shape[:2]
    mask = Image.fromarray(attention.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    share = _DARKEST + (1 - _DARKEST) * np.clip(np.asarray(mask), 0, 1)
    return Image.fromarray((pixels * share[..., None]).round().astype(np.uint8))
