"""Times of calls that are made again and again: rounds, their quartiles, and CPU time."""

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils


class Spread(NamedTuple):
    """Quartiles of a figure over rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Quartiles of at least one value, interpolated between the values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Rounds:
    """Times of one call, a value for each round.

    Attributes:
      calls: in a round.
      seconds: of a call.
      cpu_seconds: of a call, over all threads of this process and its children.
    """

    calls: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]


def time_calls(run: Callable[[int], object], *, seconds: float, rounds: int) -> Rounds:
    """Times calls. All processes make the same number of them, so a call may hold collectives.

    Args:
      run: makes so many calls and waits for their results.
      seconds: that a round takes about, if a call takes less.
    """
    run(1)  # It chooses kernels and allocates.
    once = largest_of_all(_seconds(lambda: run(1)))
    calls = max(1, math.ceil(seconds / max(once, 1e-9)))
    wall, cpu = [], []
    for _ in range(rounds):
        before = cpu_seconds()
        wall.append(_seconds(lambda: run(calls)) / calls)
        cpu.append((cpu_seconds() - before) / calls)
    return Rounds(calls, tuple(wall), tuple(cpu))


def cpu_seconds() -> float:
    """CPU time that this process and its children have taken so far."""
    ended = os.times()
    total = time.process_time() + ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # It may have ended just now.
            each = child.cpu_times()
            total += each.user + each.system
    return total


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def largest_of_all(value: float) -> float:
    """The largest value of all processes."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.process_allgather(np.float32(value)).max())
