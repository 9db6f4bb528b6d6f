"""What masked patch prediction predicts of a patch (arXiv 2010.11929, appendix B.1.2).

The paper tries three targets: the mean colour with 3 bits a channel, a patch downsized to 4x4 such
colours, and the pixels themselves. It does not say how a patch is downsized, where a colour changes
its class, nor in which range pixels are compared. Here colours are the exact means over areas, and
level k of 8 holds the means from 32 k up to, not including, 32 (k + 1), of pixels from 0 to 255.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

BITS = 3
"""Bits of each channel of a colour."""
COLOURS = 2 ** (3 * BITS)
"""Classes of a colour: 512."""
CELLS = 4
"""Rows and columns of a downsized patch."""

_STEP = 256 // 2**BITS


def in_patches(images: Array, grid: tuple[int, int], side: int) -> Array:
    """Cuts images into patches; a remainder at the bottom and right is left out.

    Args:
      images: [batch, height, width, 3].
      grid: rows and columns of patches.
      side: of a patch, in pixels.

    Returns:
      [batch, rows * columns, side, side, 3].
    """
    rows, columns = grid
    cut = images[:, : rows * side, : columns * side]
    parts = cut.reshape(len(images), rows, side, columns, side, 3).swapaxes(2, 3)
    return parts.reshape(len(images), rows * columns, side, side, 3)


def mean_colours(patches: Array) -> Array:
    """The class of each patch's mean colour, 64 red + 8 green + blue.

    Args:
      patches: uint8 [batch, patches, side, side, 3].

    Returns:
      int32 [batch, patches, 1], from 0 to 511.
    """
    return _colours(patches, 1)


def downsized_colours(patches: Array) -> Array:
    """The classes of the 4x4 colours that a patch is downsized to, row by row.

    A cell is the mean over its area. Where 4 does not divide the side, cells share a row or column
    of pixels: cell i has those from floor(i side / 4) to ceil((i + 1) side / 4).

    Args:
      patches: uint8 [batch, patches, side, side, 3], with a side of at least 4.

    Returns:
      int32 [batch, patches, 16], from 0 to 511.
    """
    return _colours(patches, CELLS)


def _colours(patches: Array, cells: int) -> Array:
    """[batch, patches, side, side, 3] -> int32 [batch, patches, cells * cells]."""
    pixels = _pixels_of_cells(patches.shape[2], cells)
    # Sums of at most 2^16 pixels of at most 255: exact in float32, and so are the levels below.
    sums = jnp.einsum(
        "nr,mc,bprcd->bpnmd",
        *(pixels, pixels, patches.astype(jnp.float32)),
        precision=jax.lax.Precision.HIGHEST,
    ).astype(jnp.int32)
    counts = np.outer(pixels.sum(axis=1), pixels.sum(axis=1)).astype(np.int32)
    levels = sums // (_STEP * counts[..., None])
    classes = (levels[..., 0] << 2 * BITS) + (levels[..., 1] << BITS) + levels[..., 2]
    return classes.reshape(*patches.shape[:2], cells * cells)


def _pixels_of_cells(side: int, cells: int) -> np.ndarray:
    """Which pixels of a side are in which cell: 0 or 1, float32 [cells, side]."""
    cell, pixel = np.arange(cells)[:, None], np.arange(side)[None]
    inside = (pixel >= cell * side // cells) & (pixel < -(-(cell + 1) * side // cells))
    return inside.astype(np.float32)
