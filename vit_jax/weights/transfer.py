"""Fits parameters to a model of another resolution, patch or number of classes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import jax
import numpy as np
from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.spelling import nearest
from vit_jax.weights.stored import AnyArray, lazily

Grid = tuple[int, int]
_OFFSETS = "blocks/offset_embedding"
# How positions are resized to another grid: see `resize_positions`.
PositionResize = Literal[
    "aligned",
    "bilinear",
    "bilinear_antialiased",
    "bicubic",
    "bicubic_antialiased",
    "bicubic_pytorch",
]


def adapt_params(
    params: Params,
    target: Params,
    *,
    old_grid: Grid,
    new_grid: Grid,
    has_class_token: bool,
    position_resize: PositionResize = "aligned",
) -> tuple[Params, list[str]]:
    """Makes parameters fit a model, as for fine-tuning (paper sections 3.2 and B.1.1).

    Tables of positions are resized if the grid differs, and the patch embedding if the patch
    differs. The head is zero-initialised if the number of classes differs, or if the file has a
    representation layer (`pre_logits`) that the model lacks: that drops the whole two-layer head.
    For a model without a head it is dropped. Everything else must fit.

    Args:
      params: nested parameters of the file, arrays or `StoredArray`s.
      target: nested parameters of the model, for their shapes and types only.
      old_grid: height and width of the file's positions in patches.
      new_grid: height and width of the model's input in patches.
      has_class_token: whether the first position is the class token's.
      position_resize: see `resize_positions`.

    Returns:
      The nested parameters as `StoredArray`s, which are changed when they are read, and a short
      note on each change.

    Raises:
      UserError: names that are missing, superfluous or of another shape; all are listed with both
        shapes. Or no way to resize positions has this name, or they are relative, and the grid
        differs.
    """
    require_known(position_resize)
    flat = traverse_util.flatten_dict(params, sep="/")
    wanted = traverse_util.flatten_dict(target, sep="/")
    flat, notes = _with_head(flat, wanted)
    if _OFFSETS in flat and old_grid != new_grid:
        raise UserError(
            f"relative positions have an embedding for each offset along the rows of a grid of "
            f"{old_grid[0]}x{old_grid[1]}, and on one of {new_grid[0]}x{new_grid[1]} an offset is "
            "another place: they are not resized; use the image size of the weights"
        )
    # Before anything is resized, because a class token on one side only shows here by its name.
    _check_fit(flat, wanted)
    tables = {
        path: _Table.of_offsets(leaf.shape[0], wanted[path].shape[0])
        if path.endswith("/offset_embedding")
        else _Table.of(path, old_grid, new_grid, has_class_token)
        for path, leaf in flat.items()
        if _is_position_table(path)
    }
    for path, table in tables.items():
        _require_grid(flat[path].shape[-2] - table.has_class_token, table.old_grid)
        if table.old_grid != table.new_grid:
            flat[path] = lazily(
                flat[path],
                functools.partial(table.resized, method=position_resize),
                shape=tuple(wanted[path].shape),
                dtype=np.float32,
            )
    if any(table.old_grid != table.new_grid for table in tables.values()):
        notes.append(f"positions {old_grid[0]}x{old_grid[1]} -> {new_grid[0]}x{new_grid[1]}")
    # A ResNet has no patch embedding.
    embeddings = [p["embedding/kernel"] for p in (flat, wanted) if "embedding/kernel" in p]
    old_patch, new_patch = [embedding.shape[0] for embedding in embeddings] or [0, 0]
    if old_patch != new_patch:
        flat["embedding/kernel"] = lazily(
            flat["embedding/kernel"],
            lambda x: resize_patch_embedding(x, new_patch),
            shape=tuple(wanted["embedding/kernel"].shape),
            dtype=np.float32,
        )
        notes.append(f"patches {old_patch}x{old_patch} -> {new_patch}x{new_patch}")
    fitted = {
        name: lazily(leaf, functools.partial(np.asarray, dtype=dtype), dtype=dtype)
        for name, leaf in flat.items()
        for dtype in [wanted[name].dtype]
    }
    return traverse_util.unflatten_dict(fitted, sep="/"), notes


class _Table(NamedTuple):
    """How a table of positions lies on the grids; tables of rows or columns on one line of them."""

    old_grid: Grid
    new_grid: Grid
    has_class_token: bool

    @classmethod
    def of(cls, path: str, old: Grid, new: Grid, has_class_token: bool) -> _Table:
        """The table at a path."""
        if path.endswith("row_embedding"):
            return cls((old[0], 1), (new[0], 1), False)
        if path.endswith("column_embedding"):
            return cls((1, old[1]), (1, new[1]), False)
        return cls(old, new, has_class_token)

    @classmethod
    def of_offsets(cls, old: int, new: int) -> _Table:
        """An AxialResNet's offsets along one axis, from the most negative to the largest."""
        return cls((old, 1), (new, 1), False)

    def resized(self, table: np.ndarray, method: PositionResize) -> np.ndarray:
        """[..., positions, channels] on the new grid; leading axes are those of equal tables."""
        each = [
            resize_positions(one[None], *self, method)
            for one in table.reshape(-1, *table.shape[-2:])
        ]
        return np.concatenate(each).reshape(*table.shape[:-2], *each[0].shape[1:])


def _is_position_table(path: str) -> bool:
    if path.startswith("backbone/"):
        return path.endswith("/offset_embedding")
    name = path.removeprefix("blocks/").removeprefix("shared_")
    return name in ("pos_embedding", "row_embedding", "column_embedding")


def _with_head(
    flat: Mapping[str, AnyArray], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> tuple[dict[str, AnyArray], list[str]]:
    """Fits the head of loaded parameters to the model's; returns notes on what was changed, too."""
    notes = []
    drops_pre_logits = "pre_logits/kernel" in flat and "pre_logits/kernel" not in wanted
    old, new = (p["head/kernel"].shape[-1] if "head/kernel" in p else 0 for p in (flat, wanted))
    kept = {k: v for k, v in flat.items() if not (drops_pre_logits and k.startswith("pre_logits/"))}
    if drops_pre_logits:
        notes.append("pre_logits dropped")
    if new == 0:
        kept = {k: v for k, v in kept.items() if not k.startswith("head/")}
        notes += [f"head of {old} classes dropped"] if old else []
    elif old != new or drops_pre_logits:
        zeros = {k: np.zeros(v.shape, v.dtype) for k, v in wanted.items() if k.startswith("head/")}
        kept |= zeros
        notes.append(f"head {old} -> {new} classes, zero-initialised")
    return kept, notes


def resize_positions(
    pos_embedding: np.ndarray,
    old_grid: Grid,
    new_grid: Grid,
    has_class_token: bool,
    method: PositionResize = "aligned",
) -> np.ndarray:
    """Resizes position embeddings (1, T, D) to another grid (paper section 3.2).

    The position of the class token, which is the first if there is one, stays as it is.

    Args:
      pos_embedding: (1, T, D), the grid row by row.
      old_grid: height and width in patches.
      new_grid: the wanted height and width in patches.
      has_class_token: whether the first position is the class token's.
      method: `aligned` is bilinear with aligned corners, as `scipy.ndimage.zoom(order=1)` in the
        official code. The others have half-pixel centres. `bicubic` is Keys' cubic with a = -0.5,
        as in `jax.image.resize`. `bicubic_pytorch` has a = -0.75, as PyTorch without
        antialiasing, with which Hugging Face and DINOv2 resize positions; beyond the border it
        repeats the outermost. Antialiasing matters if the grid shrinks.

    Returns:
      (1, T', D) in float32.

    Raises:
      UserError: the number of positions does not fit `old_grid`, or no method has this name.
    """
    require_known(method)
    positions = np.asarray(pos_embedding, np.float32)[0]
    prefix, flat_grid = np.split(positions, [int(has_class_token)])
    _require_grid(len(flat_grid), old_grid)
    grid = flat_grid.reshape(*old_grid, -1)
    if method in ("aligned", "bicubic_pytorch"):
        matrix = _aligned if method == "aligned" else _pytorch_cubic
        rows, columns = map(matrix, old_grid, new_grid)
        resized = columns @ np.tensordot(rows, grid, 1)
    else:
        kind, _, antialias = method.partition("_")
        resized = _resize(grid, (*new_grid, grid.shape[-1]), kind, antialias=bool(antialias))
    return np.concatenate([prefix, resized.reshape(-1, positions.shape[-1])])[None]


def require_known(method: str) -> None:
    """Checks the name of a way to resize positions.

    Raises:
      UserError: there is none of this name.
    """
    if method not in get_args(PositionResize):
        raise UserError(
            f"no position_resize={method!r}{nearest(str(method), get_args(PositionResize))}"
        )


def resize_patch_embedding(kernel: np.ndarray, new_patch: int) -> np.ndarray:
    """Resizes a patch embedding's kernel (P, P, 3, D) to patches of another side.

    This is the pseudo-inverse of FlexiViT (arXiv 2212.08013, section 3.4, eq. 3). The new kernel
    embeds bilinearly resized patches as the old kernel embeds the original ones: exactly if patches
    grow, and as closely as possible if they shrink. The resize has no antialiasing, as in the
    authors' code.

    Args:
      kernel: (P, P, 3, D).
      new_patch: P', the wanted side.

    Returns:
      (P', P', 3, D) in float32.
    """
    old_patch = kernel.shape[0]
    basis = np.eye(old_patch**2, dtype=np.float32).reshape(old_patch, old_patch, -1)
    resize = _resize(basis, (new_patch, new_patch, old_patch**2), "bilinear", antialias=False)
    # It resizes a flat patch: (new pixels, old pixels).
    matrix = resize.reshape(new_patch**2, old_patch**2).astype(np.float64)
    flat = np.asarray(kernel, np.float64).reshape(old_patch**2, -1)
    resized = np.linalg.pinv(matrix.T) @ flat
    return resized.reshape(new_patch, new_patch, *kernel.shape[2:]).astype(np.float32)


def _resize(
    array: np.ndarray, shape: tuple[int, ...], method: str, *, antialias: bool
) -> np.ndarray:
    # On the host, even if there are accelerators, and in full precision.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(
            jax.image.resize(
                array, shape, method, antialias=antialias, precision=jax.lax.Precision.HIGHEST
            )
        )


def _aligned(old: int, new: int) -> np.ndarray:
    """The matrix (new, old) of linear interpolation with the first and last points aligned."""
    places = np.linspace(0, old - 1, new)[:, None]
    return np.maximum(0, 1 - np.abs(places - np.arange(old))).astype(np.float32)


def _pytorch_cubic(old: int, new: int) -> np.ndarray:
    """The matrix (new, old) of cubic convolution with a = -0.75 at half-pixel centres."""
    a = -0.75
    places = (np.arange(new) + 0.5) * (old / new) - 0.5
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        source = np.floor(places).astype(int) + tap
        distance = np.abs(places - source)
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        np.add.at(
            matrix,
            (np.arange(new), source.clip(0, old - 1)),
            np.where(distance <= 1, near, far),
        )
    return matrix.astype(np.float32)


def _require_grid(positions: int, grid: Grid) -> None:
    if positions != math.prod(grid):
        raise UserError(
            f"the weights hold {positions} positions, which is not a grid of {grid[0]}x{grid[1]}; "
            "give the image size that they were trained on"
        )


def _check_fit(flat: Mapping[str, AnyArray], wanted: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    problems = []
    for name in sorted(flat.keys() | wanted.keys()):
        old, new = (
            tuple(leaves[name].shape) if name in leaves else None for leaves in (flat, wanted)
        )
        if _is_position_table(name) and old and new:
            fits = (old[:-2], old[-1:]) == (new[:-2], new[-1:])
        elif name == "embedding/kernel" and old and new:
            fits = len(old) == len(new) and old[2:] == new[2:]
        else:
            fits = old == new
        if not fits:
            problems.append(f"{name}: file {old or 'none'}, model {new or 'none'}")
    if problems:
        raise UserError(
            f"the weights do not fit the model ({'; '.join(problems)}); "
            "choose the model that they were made for"
        )
