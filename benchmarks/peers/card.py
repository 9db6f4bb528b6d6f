"""Training, inference and attention on one GPU in bfloat16, by the clock."""

import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from benchmarks.peers.case import BASE, Case, Job, model
from benchmarks.peers.rounds import Sample, agreement, orders, significant, start
from benchmarks.peers.worker import Failed, OutOfDeviceMemory, Worker
from vit_jax.analysis.peaks import images_at_peak

MODELS = ("ViT-S/16", "ViT-B/16", "ViT-L/16", "ViT-H/14")
LARGEST = 2048
# Too large even with one image, or an error, which is printed.
NOT_RUN = "does not run"
# Visits to each contender, one in each order. A visit compiles again.
_VISITS = 2
# A forward pass has a third of the multiply-adds of training.
_FORWARD = 1 / 3


def cases(models: Sequence[str], small: bool) -> list[Case]:
    """Training, inference and attention of each model, with the largest batch to try."""
    batch = 4 if small else LARGEST
    jobs: tuple[Job, ...] = ("train", "forward", "attention")
    return [Case(job, model(name, small, "bfloat16"), batch) for name in models for job in jobs]


def largest_batch(fits: Callable[[int], bool], batch_size: int) -> int | None:
    """The first of a batch size, its half, its quarter, ... that fits; None if not even 1 does."""
    while batch_size and not fits(batch_size):
        batch_size //= 2
    return batch_size or None


def table(
    names: Sequence[str],
    models: Sequence[str],
    rounds: int,
    steps: int,
    small: bool,
    tell: Callable[[str], None],
) -> None:
    """Measures row by row and tells each as it is known.

    Args:
      rounds: turns in all; each contender has the card for itself for half of them.
      steps: repetitions in a turn.
    """
    tell("| | " + " | ".join(names) + " |")
    tell("|" + " --- |" * (len(names) + 1))
    agreements = []
    for case in cases(models, small):
        largest: dict[str, int | None] = {}
        for name in names:
            try:
                largest[name] = _largest(case, name)
            except Failed as error:
                # The table goes on without it.
                largest[name] = None
                print(error, file=sys.stderr)
        able = [name for name in names if largest[name]]
        batch_size = min((size for size in largest.values() if size), default=None)
        if batch_size is None:
            tell(f"| {case.title} | " + " | ".join(NOT_RUN for _ in names) + " |")
            continue
        told = case.sized(batch_size)
        samples, words, kind = _visits(told, able, rounds, steps)
        agreements.append(words)
        cells = (_cell(told, samples, name, kind) for name in names)
        tell(f"| {told.title} | " + " | ".join(cells) + " |")
        sizes = " | ".join(str(largest[name] or "") for name in names)
        tell(f"| largest batch that fits, of {case.batch_size} and its halves | {sizes} |")
    tell("")
    for words in agreements:
        tell(f"- {words}.")


def _largest(case: Case, name: str) -> int | None:
    def fits(batch_size: int) -> bool:
        with Worker(name) as worker:
            try:
                worker.start(case.sized(batch_size))
                worker.run(1)
            except OutOfDeviceMemory:
                return False
        return True

    return largest_batch(fits, case.batch_size)


def _visits(
    case: Case, names: Sequence[str], rounds: int, steps: int
) -> tuple[dict[str, Sample], str, str]:
    """Samples by contender, how far they agree, and the card."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    values: dict[str, list[float]] = {}
    for name in orders(names, _VISITS):
        with Worker(name) as worker:
            _, kind, _ = worker.describe()
            values[name] = start(worker, case)
            worker.run(steps)
            for _ in range(max(1, rounds // _VISITS)):
                seconds[name].append(worker.run(steps).wall / steps)
    samples = {name: Sample(turns) for name, turns in seconds.items()}
    return samples, agreement(case, values), kind


def _cell(case: Case, samples: dict[str, Sample], name: str, kind: str) -> str:
    if name not in samples:
        return NOT_RUN
    sample = samples[name]
    ratio = f", **{samples[BASE].low / sample.low:.2f}**" if BASE in samples else ""
    return f"{_speed(case, sample, kind)} +{100 * sample.spread:.0f} %{ratio}"


def _speed(case: Case, sample: Sample, kind: str) -> str:
    """Images a second and, on a card whose peak is known, the share of it; milliseconds alone."""
    if case.job == "attention":
        return f"{significant(1000 * sample.low)} ms"
    speed = case.batch_size / sample.low
    device = SimpleNamespace(device_kind=kind, platform="gpu")
    peak = images_at_peak(case.config, [device])
    if peak is None:
        return f"{speed:,.0f} img/s"
    work = _FORWARD if case.job == "forward" else 1
    return f"{speed:,.0f} img/s, {100 * work * speed / peak:.1f} % of peak"
