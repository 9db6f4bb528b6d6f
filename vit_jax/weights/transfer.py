"""Fitting read parameters to a model of another resolution or with other classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from vit_jax.errors import UserError

Grid = tuple[int, int]


def adapt(
    params: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    old_grid: Grid | None = None,
    new_grid: Grid,
    has_class_token: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Makes read parameters fit a model, as for fine-tuning (paper sections 3.2 and B.1.1).

    Positions are resized when the grid differs. The head is zero-initialised when the number of
    classes differs, and when the file has a representation layer (`pre_logits`) that the model
    has not: then the whole two-layer head goes. Everything else must fit.

    Args:
      params: nested parameters of the file.
      target: nested arrays or `jax.ShapeDtypeStruct`s of the model; gives shapes and dtypes.
      old_grid: height and width, in patches, of the file's positions. None: a square if their
          number is one, else the model's grid if their number agrees.
      new_grid: the model's height and width in patches.
      has_class_token: whether the first position is the class token's.

    Returns:
      The nested parameters, and a short note for each change.

    Raises:
      UserError: names missing, extra or of another shape, all listed with both shapes.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    wanted = traverse_util.flatten_dict(target, sep="/")
    notes: list[str] = []

    both_heads = "head/kernel" in flat and "head/kernel" in wanted
    drop_pre_logits = (
        both_heads and "pre_logits/kernel" in flat and "pre_logits/kernel" not in wanted
    )
    if both_heads:
        old_classes, new_classes = (p["head/kernel"].shape[-1] for p in (flat, wanted))
        if drop_pre_logits or old_classes != new_classes:
            flat |= {
                name: np.zeros(leaf.shape, leaf.dtype)
                for name, leaf in wanted.items()
                if name.startswith("head/")
            }
            notes.append(f"head {old_classes} -> {new_classes} classes, zero-initialised")
    if drop_pre_logits:
        flat = {name: leaf for name, leaf in flat.items() if not name.startswith("pre_logits/")}
        notes.append("pre_logits dropped")

    # Before the positions are touched: a class token on one side only shows here by its name.
    _check_fit(flat, wanted)
    if "pos_embedding" in flat:
        positions = flat["pos_embedding"]
        length = positions.shape[1] - has_class_token
        old_grid = old_grid or _guess_grid(length, new_grid)
        if (old_grid, length) != (new_grid, math.prod(new_grid)):
            flat["pos_embedding"] = resize_positions(positions, old_grid, new_grid, has_class_token)
            notes.append(f"positions {old_grid[0]}x{old_grid[1]} -> {new_grid[0]}x{new_grid[1]}")
    fitted = {name: np.asarray(leaf, wanted[name].dtype) for name, leaf in flat.items()}
    return traverse_util.unflatten_dict(fitted, sep="/"), notes


def resize_positions(
    pos_embedding: np.ndarray, old_grid: Grid | None, new_grid: Grid, has_class_token: bool
) -> np.ndarray:
    """Position embeddings (1, T, D) at another grid, (1, T', D) in float32 (paper section 3.2).

    Bilinear in two dimensions with aligned corners, as `scipy.ndimage.zoom(order=1)` in the
    official code. The class token's position, the first one if there is one, is kept as it is.

    Args:
      pos_embedding: (1, T, D), rows of the grid one after the other.
      old_grid: height and width in patches; None means square.
      new_grid: the wanted height and width in patches.
      has_class_token: whether the first position is the class token's.

    Raises:
      UserError: the number of positions is not that of `old_grid`, or not a square.
    """
    positions = np.asarray(pos_embedding, np.float32)[0]
    prefix, grid = np.split(positions, [int(has_class_token)])
    height, width = old_grid or _square(len(grid))
    if len(grid) != height * width:
        raise UserError(
            f"the weights hold {len(grid)} positions, which is not a grid of {height}x{width}; "
            "give the height and width, in patches, of the images they were trained on"
        )
    rows = _interpolation(height, new_grid[0])
    columns = _interpolation(width, new_grid[1])
    resized = columns @ np.tensordot(rows, grid.reshape(height, width, -1), 1)
    return np.concatenate([prefix, resized.reshape(-1, positions.shape[-1])])[None]


def _interpolation(old: int, new: int) -> np.ndarray:
    """The matrix (new, old) that interpolates linearly with the first and last points aligned."""
    places = np.linspace(0, old - 1, new)[:, None]
    return np.maximum(0, 1 - np.abs(places - np.arange(old))).astype(np.float32)


def _square(length: int) -> Grid:
    side = math.isqrt(length)
    if side * side != length:
        raise UserError(
            f"the weights hold {length} positions, which is not a square grid; "
            "give the height and width, in patches, of the images they were trained on"
        )
    return side, side


def _guess_grid(length: int, new_grid: Grid) -> Grid:
    is_square = math.isqrt(length) ** 2 == length
    return new_grid if length == math.prod(new_grid) and not is_square else _square(length)


def _check_fit(flat: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    problems = []
    for name in sorted(flat.keys() | wanted.keys()):
        old, new = (
            tuple(leaves[name].shape) if name in leaves else None for leaves in (flat, wanted)
        )
        if name == "pos_embedding" and old and new:
            fits = len(old) == len(new) and (old[0], *old[2:]) == (new[0], *new[2:])
        else:
            fits = old == new
        if not fits:
            problems.append(f"{name}: file {old or 'none'}, model {new or 'none'}")
    if problems:
        raise UserError(
            f"the weights do not fit the model ({'; '.join(problems)}); "
            "choose the model that they were made for"
        )
