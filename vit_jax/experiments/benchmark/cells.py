"""One cell of a benchmark: a program is compiled, compared with the memory, and timed."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.experiments.benchmark.largest import Limit
from vit_jax.experiments.benchmark.timing import Rounds, Spread, time_calls
from vit_jax.inference.memory import OutOfMemory, ProgramMemory, noticing_lack_of_memory


class Job(Protocol):
    """What is timed."""

    def lower(self) -> jax.stages.Lowered:
        """The program, traced."""

    def start(self, compiled: jax.stages.Compiled) -> Callable[[int], object]:
        """Puts its arrays on the devices.

        Returns:
          What makes so many calls of the compiled program and waits for them.
        """


class Cell(NamedTuple):
    """What is measured.

    Attributes:
      settings: what else varies, such as `model.remat=dots`.
      image_size: height and width in pixels.
      batch_size: images of a call over all devices.
    """

    model: str
    settings: str
    image_size: tuple[int, int]
    batch_size: int


@dataclass(frozen=True)
class Result:
    """What was measured of a cell.

    Attributes:
      rounds: None if the program does not fit.
      memory: of the program on each device, as its compiler counts; None if it was not compiled.
      device_peak: most bytes that a device has held, if this cell took more than all before it in
        this process, and the platform tells; otherwise None.
      trace_seconds: in Python, before the compiler.
      compile_seconds: of the compiler.
      peak_rate: images a second at the devices' peak; None if it is not known.
      lack: why it does not fit, in words.
    """

    cell: Cell
    devices: int
    rounds: Rounds | None
    memory: ProgramMemory | None
    device_peak: int | None
    trace_seconds: float | None
    compile_seconds: float | None
    peak_rate: float | None
    lack: str | None = None

    @property
    def rate(self) -> Spread | None:
        """Images a second over all devices."""
        if self.rounds is None:
            return None
        return Spread.of([self.cell.batch_size / seconds for seconds in self.rounds.seconds])

    @property
    def device_rate(self) -> float | None:
        """Images a second a device, the median."""
        return None if self.rate is None else self.rate.median / self.devices

    @property
    def cpu_rate(self) -> float | None:
        """Images a second of CPU time, the median; it says something where CPUs are the devices."""
        if self.rounds is None:
            return None
        # The time is that of this process, which computes its share of the batch.
        images = self.cell.batch_size / jax.process_count()
        return images / Spread.of(self.rounds.cpu_seconds).median

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization; None if the devices' peak is not known."""
        if self.rate is None or self.peak_rate is None:
            return None
        return self.rate.median / self.peak_rate


class _Compiled(NamedTuple):
    program: jax.stages.Compiled
    memory: ProgramMemory
    trace_seconds: float
    compile_seconds: float


def measure(
    cell: Cell,
    job: Job,
    devices: list[jax.Device],
    *,
    limit: Limit | None,
    peak_rate: float | None,
    seconds: float,
    rounds: int,
) -> Result:
    """Measures a cell; one that does not fit is a result too.

    Args:
      devices: of all processes.
      limit: of a device; None runs the program to see.
      peak_rate: as in `Result`.
      seconds: of a round.
    """
    compiled = lack = timed = None
    before = _peak_bytes(devices)
    try:
        with noticing_lack_of_memory():
            compiled = _compile(job)
            _check(compiled.memory, limit)
    except OutOfMemory as error:
        lack = str(error)
    lack = _of_any_process(lack)
    if lack is None and compiled is not None:
        try:
            with noticing_lack_of_memory():
                timed = time_calls(job.start(compiled.program), seconds=seconds, rounds=rounds)
        except OutOfMemory as error:
            lack = str(error)
    after = _peak_bytes(devices)
    return Result(
        cell,
        len(devices),
        timed,
        None if compiled is None else compiled.memory,
        after if after is not None and after > (before or 0) else None,
        None if compiled is None else compiled.trace_seconds,
        None if compiled is None else compiled.compile_seconds,
        peak_rate,
        lack,
    )


def share_of_memory(job: Job, limit: Limit | None, *, runs: bool) -> float:
    """The part of a device's memory that a program takes; infinite if it does not fit.

    Without a limit it is 0 if the program fits.

    Args:
      runs: whether it must run once too, and not only keep within the limit when compiled.
    """
    share = math.inf
    try:
        with noticing_lack_of_memory():
            compiled = _compile(job)
            share = 0.0 if limit is None else limit.share(compiled.memory)
            if runs and share <= 1:
                job.start(compiled.program)(1)
    except OutOfMemory:
        share = math.inf
    is_too_large = _of_any_process("too large" if share > 1 else None) is not None
    return math.inf if is_too_large and share <= 1 else share


def _compile(job: Job) -> _Compiled:
    began = time.perf_counter()
    lowered = job.lower()
    traced = time.perf_counter()
    program = lowered.compile()
    compiled = time.perf_counter()
    return _Compiled(program, ProgramMemory.of(program), traced - began, compiled - traced)


def _check(memory: ProgramMemory, limit: Limit | None) -> None:
    if limit is not None and limit.share(memory) > 1:
        raise OutOfMemory(
            f"{memory.total / 2**30:.2f} GiB a device, and {limit.source} is "
            f"{limit.bytes / 2**30:.2f} GiB"
        )


def _peak_bytes(devices: list[jax.Device]) -> int | None:
    """The most that one of this process's devices has held so far, where the platform tells."""
    own = [d for d in devices if d.process_index == jax.process_index()]
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in own]
    return max((peak for peak in peaks if peak is not None), default=None)


def _of_any_process(lack: str | None) -> str | None:
    """What this process lacks, or that another one lacks memory: none must wait for the others."""
    if jax.process_count() == 1:
        return lack
    lacks = multihost_utils.process_allgather(np.array(lack is not None))
    return lack or ("another process has too little memory" if lacks.any() else None)
