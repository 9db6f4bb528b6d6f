"""Arrays that are read from a file when they are needed, so that no model is in memory twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from vit_jax.errors import UserError

_ALIGNMENT = 64  # bytes
_STRIP = 128  # columns


@dataclass(frozen=True)
class StoredArray:
    """An array that `np.asarray` reads; its shape and type are known before.

    Attributes:
      shape: of the array.
      dtype: of the array.
      read: returns the array; called again for each use.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """The values."""
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)


AnyArray = np.ndarray | StoredArray


def lazily(
    array: AnyArray,
    change: Callable[[np.ndarray], np.ndarray],
    *,
    shape: tuple[int, ...] | None = None,
    dtype: DTypeLike | None = None,
) -> StoredArray:
    """Returns the array after a change, which is applied when the array is read.

    Args:
      array: read or still stored.
      change: array -> array.
      shape: of the result; None if it is the array's.
      dtype: of the result; None if it is the array's.
    """
    return StoredArray(
        tuple(array.shape) if shape is None else shape,
        np.dtype(array.dtype if dtype is None else dtype),
        lambda: change(np.asarray(array)),
    )


def stack_blocks(blocks: Mapping[str, Mapping[int, AnyArray]]) -> dict[str, StoredArray]:
    """Stacks each parameter of all blocks along a new first axis, in the order of the blocks.

    Args:
      blocks: arrays by path and by block number.

    Raises:
      UserError: a parameter has different shapes in different blocks.
    """
    for path, arrays in sorted(blocks.items()):
        if len(shapes := {tuple(array.shape) for array in arrays.values()}) > 1:
            raise UserError(
                f"{path} has different shapes in different blocks: "
                f"{', '.join(map(str, sorted(shapes)))}; only blocks of equal shape can be stacked"
            )
    return {
        path: stacked([arrays[block] for block in sorted(arrays)])
        for path, arrays in blocks.items()
    }


def require_floats(arrays: Mapping[str, AnyArray]) -> None:
    """Refuses parameters that are stored as integers: what scales them is not in the file.

    Raises:
      UserError: an array holds no floating-point numbers.
    """
    if others := sorted(
        f"{name} ({np.dtype(array.dtype)})"
        for name, array in arrays.items()
        if np.dtype(array.dtype).kind != "f" and np.dtype(array.dtype) != ml_dtypes.bfloat16
    ):
        raise UserError(
            f"{len(others)} arrays hold no floating-point numbers, such as {others[0]}; quantised "
            "weights are not read: save them as float32, float16 or bfloat16"
        )


def stacked(arrays: Sequence[AnyArray]) -> StoredArray:
    """Stacks arrays of one shape along a new first axis; each is read into its place.

    Arrays of different types become float32.
    """
    dtypes = {np.dtype(array.dtype) for array in arrays}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    shape = (len(arrays), *arrays[0].shape)

    def read() -> np.ndarray:
        out = _aligned_empty(shape, dtype)
        for place, array in zip(out, arrays, strict=True):
            _fill(place, np.asarray(array))
        return out

    return StoredArray(shape, dtype, read)


def _fill(place: np.ndarray, array: np.ndarray) -> None:
    if array.ndim != 2 or array.flags.c_contiguous:
        place[...] = array
        return
    # A transposed matrix. Strips that fit into the cache are four times as fast as one copy.
    for start in range(0, array.shape[1], _STRIP):
        strip = slice(start, start + _STRIP)
        place[:, strip] = array[:, strip]


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose address is aligned, so that JAX on a CPU uses it without a copy."""
    size = math.prod(shape) * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)
