"""The benchmark of training or inference: every cell of a grid, then the largest batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
from jax.sharding import Mesh

from vit_jax.analysis.peaks import images_at_peak, source_of_peaks
from vit_jax.experiments.benchmark import passes, training
from vit_jax.experiments.benchmark.cells import Cell, Job, Result, measure, share_of_memory
from vit_jax.experiments.benchmark.largest import Limit, find_largest, memory_limit
from vit_jax.experiments.benchmark.passes import ForwardPass
from vit_jax.experiments.benchmark.timing import largest_of_all
from vit_jax.experiments.benchmark.training import TrainingStep
from vit_jax.experiments.benchmark.workloads import Size, Workload
from vit_jax.image_size import format_size
from vit_jax.runs.cost import Hardware
from vit_jax.training.program import Program

Kind = Literal["train", "inference"]


class LargestBatch(NamedTuple):
    """The largest batch of one model at one image size.

    Attributes:
      cell: its batch size is the largest one, over all devices; 0 if none fits.
      is_capped: whether larger ones were not tried.
    """

    cell: Cell
    is_capped: bool


@dataclass
class Report:
    """What was measured so far.

    Attributes:
      seconds: of a round.
      peaks: where the devices' peak is published; None if it is not known.
      limit: of a device's memory; None if nothing tells.
      is_complete: whether all of it was measured.
    """

    kind: Kind
    seconds: float
    rounds: int
    hardware: Hardware = field(default_factory=lambda: Hardware.of(jax.devices()))
    platform: str = field(default_factory=lambda: jax.devices()[0].platform)
    processes: int = field(default_factory=jax.process_count)
    peaks: str | None = field(default_factory=lambda: source_of_peaks(jax.devices()[0]))
    limit: Limit | None = None
    results: list[Result] = field(default_factory=list)
    largest: list[LargestBatch] = field(default_factory=list)
    is_complete: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        return not self.results and not self.largest


@dataclass(frozen=True)
class Grid:
    """The cells of a benchmark.

    Attributes:
      image_sizes: in pixels; empty takes each config's own.
      batch_sizes: over all devices; empty takes each config's own.
      finds_largest: whether the largest batch of each model and image size is looked for too.
    """

    workloads: Sequence[Workload]
    image_sizes: Sequence[Size]
    batch_sizes: Sequence[int]
    finds_largest: bool = False

    def check(self) -> None:
        """Makes every program, without compiling it.

        Raises:
          UserError: a model does not take an image size, or the devices cannot split a batch.
        """
        for workload, image_size in self.columns():
            for batch_size in self.batches(workload):
                workload.program(image_size, batch_size)

    def columns(self) -> Iterator[tuple[Workload, Size]]:
        """Each workload at each image size."""
        for workload in self.workloads:
            for size in self.image_sizes or [workload.variant.config.model.image_size]:
                yield workload, size

    def batches(self, workload: Workload) -> list[int]:
        """The batch sizes of a workload, ascending."""
        return sorted(set(self.batch_sizes or [workload.variant.config.data.batch_size]))


def run(grid: Grid, report: Report, say: Callable[[str], object]) -> None:
    """Measures a grid. Each result is put into the report as soon as it is there.

    Args:
      report: of the kind that is wanted; gets the results.
      say: gets a line before each cell.
    """
    for workload, image_size in grid.columns():
        report.limit = report.limit or _common_limit(workload.mesh)
        known: dict[int, float] = {}
        for batch_size in grid.batches(workload):
            program = workload.program(image_size, batch_size)
            cell = _cell(workload, program)
            if any(share > 1 for share in known.values()):
                lack = "a smaller batch does not fit"
                result = Result(cell, program.mesh.size, None, None, None, None, None, None, lack)
            else:
                say(f"{_named(cell)}, {batch_size} images ...")
                result = _measure(report, cell, program)
            known[batch_size] = _share(result, report.limit)
            report.results.append(result)
        if grid.finds_largest:
            report.largest.append(_largest(report, workload, image_size, known, say))
    report.is_complete = True


def _common_limit(mesh: Mesh) -> Limit | None:
    """The least limit of all processes, so that all of them look for the same batches."""
    limit = memory_limit(mesh)
    return None if limit is None else limit._replace(bytes=-largest_of_all(-limit.bytes))


def _measure(report: Report, cell: Cell, program: Program) -> Result:
    devices = list(program.mesh.devices.flat)
    flops = training.FLOPS if report.kind == "train" else passes.FLOPS
    peak = images_at_peak(program.config.model, devices)
    return measure(
        cell,
        _job(report.kind, program),
        devices,
        limit=report.limit,
        # That of training, for the work of this kind.
        peak_rate=None if peak is None else peak * training.FLOPS / flops,
        seconds=report.seconds,
        rounds=report.rounds,
    )


def _largest(
    report: Report,
    workload: Workload,
    image_size: Size,
    known: dict[int, float],
    say: Callable[[str], object],
) -> LargestBatch:
    """Looks for it from what is known of some batch sizes."""
    # Nobody would wait for a batch that fills the memory of a CPU's host.
    runs = report.platform != "cpu"

    def share(batch_size: int) -> float:
        if batch_size not in known:
            program = workload.program(image_size, batch_size)
            say(f"{_named(_cell(workload, program))}, do {batch_size} images fit? ...")
            job = _job(report.kind, program)
            known[batch_size] = share_of_memory(job, report.limit, runs=runs)
        return known[batch_size]

    start = max((size for size, each in known.items() if each <= 1), default=min(known))
    found = find_largest(share, unit=workload.unit, start=start)
    program = workload.program(image_size, start)
    cell = _cell(workload, program)._replace(batch_size=found.batch_size)
    return LargestBatch(cell, found.is_capped)


def _share(result: Result, limit: Limit | None) -> float:
    """The part of a device's memory that a cell takes, as `find_largest` wants it."""
    if result.rounds is None:
        return math.inf
    return 0.0 if limit is None or result.memory is None else limit.share(result.memory)


def _job(kind: Kind, program: Program) -> Job:
    return TrainingStep(program) if kind == "train" else ForwardPass(program)


def _cell(workload: Workload, program: Program) -> Cell:
    model, data = program.config.model, program.config.data
    return Cell(model.name, workload.variant.settings, model.input_size, data.batch_size)


def _named(cell: Cell) -> str:
    size = format_size(cell.image_size)
    return f"{' '.join(filter(None, (cell.model, cell.settings)))} at {size}"
