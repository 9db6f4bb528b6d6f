"""Whether the class token has a position of its own in a file."""

from __future__ import annotations

import math

import numpy as np

from vit_jax.weights.layouts.layout import ImageSize
from vit_jax.weights.stored import AnyArray, StoredArray, lazily


def patch_positions(length: int, prefix: int, patch: int, image_size: ImageSize | None) -> int:
    """How many positions are those of patches: all, or all but a prefix.

    The image size tells it, otherwise which of the two numbers is a square.

    Args:
      length: positions in the file.
      prefix: tokens before the patches.
      patch: side of a patch in pixels.
      image_size: pixels, a side or (height, width), if known.
    """
    choices = (length - prefix, length)
    if image_size is not None:
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        if (known := (height // patch) * (width // patch)) in choices:
            return known
    return next((n for n in choices if n > 0 and math.isqrt(n) ** 2 == n), choices[0])


def with_class_position(positions: AnyArray) -> StoredArray:
    """Positions (1, T, D) of patches alone, with zeros for the class token before them."""
    _, length, width = positions.shape
    return lazily(
        positions,
        lambda x: np.concatenate([np.zeros_like(x[:, :1]), x], axis=1),
        shape=(1, length + 1, width),
    )
