"""The largest batch that fits a device."""

import math
from collections.abc import Callable
from typing import NamedTuple

import psutil
from jax.sharding import Mesh

from vit_jax.analysis.peaks import memory_bytes
from vit_jax.inference.memory import ProgramMemory

# The gap in which the answer lies is at most this share of it.
_PRECISION = 1 / 16
# A line is trusted for so many sizes, and so many times beyond what fits.
_GUESSES, _FARTHEST = 8, 64


class Limit(NamedTuple):
    """Bytes that a program may take on a device.

    Attributes:
      source: who says so, in words.
    """

    bytes: float
    source: str

    def share(self, memory: ProgramMemory) -> float:
        """The part of it that a program takes; above 1 it does not fit."""
        return memory.total / self.bytes


class Largest(NamedTuple):
    """The answer of `find_largest`.

    Attributes:
      batch_size: 0 if not even the smallest one fits.
      is_capped: whether a larger one than was allowed might fit.
    """

    batch_size: int
    is_capped: bool


def memory_limit(mesh: Mesh) -> Limit | None:
    """What a program may take on each device of a mesh; None if nothing tells.

    A CPU's devices share the memory that its host has free now.
    """
    device = mesh.local_devices[0]
    stated = (device.memory_stats() or {}).get("bytes_limit")
    if stated is not None:
        return Limit(stated, f"what JAX may use of {device.device_kind}")
    if device.platform == "cpu":
        free = psutil.virtual_memory().available
        return Limit(free / len(mesh.local_devices), "the memory that the host had free")
    published = memory_bytes(device)
    return None if published is None else Limit(published, f"the memory of {device.device_kind}")


def find_largest(
    share: Callable[[int], float], *, unit: int, start: int = 1, most: int = 2**20
) -> Largest:
    """Finds the largest batch that fits, within a sixteenth of itself.

    Memory grows nearly in proportion to the batch, so that a line through what is known of two
    sizes leads close to the answer. Without two such sizes it doubles and then halves the gap.

    Args:
      share: of the memory that a batch size takes; above 1 it does not fit. 0 and infinity say no
        more than that it fits, or that it does not.
      unit: what the batch size must be a multiple of.
      start: the batch size to begin with.
      most: the largest one that is tried.
    """
    last = most // unit
    known: dict[int, float] = {}
    low, high = 0, last + 1
    size = min(max(1, start // unit), last)
    while True:
        known[size] = share(size * unit)
        low, high = (size, high) if known[size] <= 1 else (low, size)
        if low == last:
            return Largest(last * unit, is_capped=True)
        if high - low <= _gap(low):
            return Largest(low * unit, is_capped=False)
        size = _next(known, low, high, is_bounded=max(known.values()) > 1)


def _gap(low: int) -> int:
    return max(1, int(low * _PRECISION))


def _next(known: dict[int, float], low: int, high: int, *, is_bounded: bool) -> int:
    """The size to try, above `low` and below `high`."""
    middle = (low + high) // 2 if is_bounded else min(2 * low, high - 1)
    guess = _on_a_line(known)
    if guess is None or len(known) > _GUESSES:
        return middle
    nearest, farthest = low + _gap(low), high - (_gap(low) if is_bounded else 1)
    return min(max(guess, nearest), farthest, _FARTHEST * max(low, 1)) if guess > 0 else middle


def _on_a_line(known: dict[int, float]) -> int | None:
    """The size that takes all of the memory, by the two largest sizes whose share is known."""
    points = sorted((size, each) for size, each in known.items() if 0 < each < math.inf)[-2:]
    if len(points) < 2 or points[0][1] >= points[1][1]:
        return None
    (left, lower), (right, upper) = points
    # A whole number that rounding has made a little smaller stays.
    return int(left + (1 - lower) * (right - left) / (upper - lower) + 1e-6)
