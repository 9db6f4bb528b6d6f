"""Turns of all contenders in both orders, and what is told of them."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from benchmarks.peers.case import Case
from benchmarks.peers.worker import Timed, Worker

# Largest differences of losses or logits, relative to the largest.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


class Sample:
    """Seconds of one contender in one case."""

    def __init__(self, seconds: Sequence[float]):
        self.seconds = sorted(seconds)

    @property
    def low(self) -> float:
        """The lower quartile: what disturbs a turn only makes it longer."""
        return float(np.quantile(self.seconds, 0.25))

    @property
    def spread(self) -> float:
        """From the lower to the upper quartile, as a share of the lower."""
        return float(np.quantile(self.seconds, 0.75)) / self.low - 1


Samples = Mapping[str, Sample]


def orders(names: Sequence[str], rounds: int) -> Iterator[str]:
    """A B C, C B A, A B C, ... so that none always follows the same."""
    for i in range(rounds):
        yield from names if i % 2 == 0 else reversed(names)


@contextmanager
def started(case: Case, names: Sequence[str]) -> Iterator[tuple[dict[str, Worker], str]]:
    """Processes that have begun a case from the same parameters, and how far they agree.

    Raises:
      AssertionError: as `agreement`.
    """
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name)) for name in names}
        values = {name: start(worker, case) for name, worker in workers.items()}
        yield workers, agreement(case, values)


def start(worker: Worker, case: Case) -> list[float]:
    """Begins a case, and returns what it gives: three losses, or the first of other numbers."""
    first = worker.start(case).values
    return first + worker.run(2).values if case.job == "train" else first


def agreement(case: Case, values: Mapping[str, list[float]]) -> str:
    """How far what contenders gave lies from the first of them, in words.

    Raises:
      AssertionError: too far: one of them computes something else.
    """
    base = np.array(next(iter(values.values())))
    largest = max(float(np.abs(np.array(v) - base).max()) for v in values.values())
    relative = largest / float(np.abs(base).max())
    what = "losses of the first three steps" if case.job == "train" else "values"
    told = f"{case.title}: {what} differ by at most {relative:.0e} of the largest"
    assert relative < TOLERANCE[case.config.dtype], f"{told}: {values}"
    return told


def take_turns(
    workers: Mapping[str, Worker], rounds: int, count: int, *, cpu: bool
) -> dict[str, Sample]:
    """Seconds of one repetition, from `count` in each turn: of CPU time, or else of the clock."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for name in orders(list(workers), rounds):
        seconds[name].append(_seconds(workers[name].run(count), cpu) / count)
    return {name: Sample(values) for name, values in seconds.items()}


def take_starts(case: Case, rounds: Mapping[str, int], *, cpu: bool) -> dict[str, Sample]:
    """Seconds from imported libraries to the end of the first step, in a new process each time.

    Args:
      rounds: by contender.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    for name in orders(list(rounds), max(rounds.values())):
        if len(seconds[name]) < rounds[name]:
            with Worker(name) as worker:
                seconds[name].append(_seconds(worker.start(case, fresh=True), cpu))
    return {name: Sample(values) for name, values in seconds.items()}


def _seconds(timed: Timed, cpu: bool) -> float:
    return timed.cpu if cpu else timed.wall


def cell(sample: Sample, base: Sample | None) -> str:
    """As in `1.23 s ±4 %, **0.95**`: lower quartile, spread, and the ratio to plain Flax's."""
    ratio = "" if base is None else f", **{sample.low / base.low:.2f}**"
    spread = f" +{100 * sample.spread:.0f} %" if len(sample.seconds) > 1 else ""
    return f"{significant(sample.low)} s{spread}{ratio}"


def significant(seconds: float) -> str:
    """Three digits."""
    digits = max(0, 2 - math.floor(math.log10(seconds)))
    return f"{seconds:,.{digits}f}"


def mean_ratio(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return statistics.geometric_mean(ratios)
