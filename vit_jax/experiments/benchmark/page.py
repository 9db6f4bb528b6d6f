"""What a benchmark of training or inference has found: tables to read, and values for JSON."""

import os
import platform
from dataclasses import asdict
from typing import Any

import jax

from vit_jax.experiments.benchmark.cells import Cell, Result
from vit_jax.experiments.benchmark.running import LargestBatch, Report
from vit_jax.experiments.benchmark.timing import Spread
from vit_jax.experiments.paper.page import Page
from vit_jax.image_size import format_size
from vit_jax.version import __version__

_WORK = {
    "train": "training step (forward, backward, update)",
    "inference": "forward pass",
}
_NO_MFU = {
    "cpu": "MFU: CPUs have no published peak",
    "other": "MFU: the peak of these devices is not known here",
}


def pages(report: Report) -> list[Page]:
    """The table of cells, and that of the largest batches if they were looked for."""
    found = [_speeds(report)] if report.results else []
    return [*found, *([_largest(report)] if report.largest else [])]


def title(report: Report) -> str:
    """What was measured on what, in a line."""
    return f"{_WORK[report.kind]} on {_machine(report)}"


def _machine(report: Report) -> str:
    """As in `1 x NVIDIA H100 80GB HBM3, vit_jax 0.2.0, jax 0.10.2, Python 3.11.2`."""
    versions = f"vit_jax {__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    return f"{report.hardware.devices} x {report.hardware.kind}, {versions}"


def as_values(report: Report) -> dict[str, Any]:
    """All numbers, for JSON."""
    return {
        "benchmark": report.kind,
        "complete": report.is_complete,
        "versions": {
            "vit_jax": __version__,
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
        "device": report.hardware.kind,
        "platform": report.platform,
        "devices": report.hardware.devices,
        "processes": report.processes,
        "peak_source": report.peaks,
        "memory_limit": None if report.limit is None else report.limit._asdict(),
        "round_seconds": report.seconds,
        "rounds": report.rounds,
        "results": [_result_values(result) for result in report.results],
        "largest": [_largest_values(report, each) for each in report.largest],
    }


def line(result: Result) -> str:
    """The speed of a cell in words, for progress."""
    if result.rate is None:
        return f"  does not fit: {result.lack}"
    return f"  {number(result.rate.median)} img/s"


def number(value: float) -> str:
    """A rate with three or more digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def quartiles(spread: Spread) -> str:
    """The outer quartiles, as in `118.2 to 121.5`."""
    return f"{number(spread.low)} to {number(spread.high)}"


def _speeds(report: Report) -> Page:
    has_settings = any(result.cell.settings for result in report.results)
    is_shared, is_cpu = report.hardware.devices > 1, report.platform == "cpu"
    heading = [
        "model",
        *(["settings"] if has_settings else []),
        "image",
        "batch",
        "img/s",
        "quartiles",
        *(["img/s a device"] if is_shared else []),
        *(["img/CPU s"] if is_cpu else []),
        "MFU",
        "memory, GiB",
        "compile, s",
    ]
    rows = []
    for result in report.results:
        rate, cell = result.rate, result.cell
        missing = "" if rate is None else "-"
        memory = "-" if result.memory is None else f"{result.memory.total / 2**30:.2f}"
        rows.append(
            (
                cell.model,
                *([cell.settings] if has_settings else []),
                format_size(cell.image_size),
                f"{cell.batch_size:,}",
                "does not fit" if rate is None else number(rate.median),
                "" if rate is None else quartiles(rate),
                *([_or(result.device_rate, missing)] if is_shared else []),
                *([_or(result.cpu_rate, missing)] if is_cpu else []),
                "-" if result.mfu is None else f"{result.mfu:.1%}",
                memory,
                _compile_seconds(result),
            )
        )
    return Page(
        source=_machine(report),
        title=f"{_WORK[report.kind]}: medians of {report.rounds} rounds of about "
        f"{report.seconds:g} s",
        heading=tuple(heading),
        rows=tuple(rows),
        notes=_notes(report),
        left=1 + has_settings,
    )


def _or(value: float | None, missing: str) -> str:
    return missing if value is None else number(value)


def _compile_seconds(result: Result) -> str:
    if result.trace_seconds is None or result.compile_seconds is None:
        return "-"
    return f"{result.trace_seconds + result.compile_seconds:.1f}"


def _notes(report: Report) -> tuple[str, ...]:
    notes = ["images and labels are random and lie on the devices; batch: over all devices"]
    if report.peaks is not None:
        notes.append(f"MFU: without what is recomputed, of the peak in {report.peaks}")
    else:
        notes.append(_NO_MFU.get(report.platform, _NO_MFU["other"]))
    notes.append(
        "memory: arguments, results and temporaries of the program on a device, as its compiler "
        "counts"
    )
    if cache := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        notes.append(f"compile: programs that are found in {cache} are not compiled")
    lacks = {result.lack: None for result in report.results if result.memory and result.lack}
    notes += [f"does not fit: {lack}" for lack in lacks]
    if not report.is_complete:
        notes.append("interrupted: not all was measured")
    return tuple(notes)


def _largest(report: Report) -> Page:
    limit = report.limit
    room = (
        "by running it"
        if limit is None
        else f"in {limit.bytes / 2**30:.2f} GiB a device ({limit.source})"
    )
    how = "compiled, not run" if report.platform == "cpu" else "compiled and run once"
    has_settings = any(each.cell.settings for each in report.largest)
    is_shared = report.hardware.devices > 1
    rows = [
        (
            each.cell.model,
            *([each.cell.settings] if has_settings else []),
            format_size(each.cell.image_size),
            f"{each.cell.batch_size:,}{' or more' if each.is_capped else ''}",
            *([number(each.cell.batch_size / report.hardware.devices)] if is_shared else []),
        )
        for each in report.largest
    ]
    return Page(
        source=_machine(report),
        title=f"largest batch that fits {room}; {how}; within 6 %",
        heading=(
            "model",
            *(["settings"] if has_settings else []),
            "image",
            "batch",
            *(["a device"] if is_shared else []),
        ),
        rows=tuple(rows),
        left=1 + has_settings,
    )


def _cell_values(cell: Cell, devices: int) -> dict[str, Any]:
    height, width = cell.image_size
    return {
        "model": cell.model,
        "settings": cell.settings,
        "image_height": height,
        "image_width": width,
        "batch_size": cell.batch_size,
        "batch_size_a_device": cell.batch_size / devices,
    }


def _result_values(result: Result) -> dict[str, Any]:
    rate, memory, rounds = result.rate, result.memory, result.rounds
    return {
        **_cell_values(result.cell, result.devices),
        "fits": rate is not None,
        "lack": result.lack,
        "images_per_second": None if rate is None else rate._asdict(),
        "images_per_second_a_device": result.device_rate,
        "images_per_cpu_second": result.cpu_rate,
        "mfu": result.mfu,
        "memory_bytes": None if memory is None else {**memory._asdict(), "total": memory.total},
        "device_peak_bytes": result.device_peak,
        "trace_seconds": result.trace_seconds,
        "compile_seconds": result.compile_seconds,
        "calls": None if rounds is None else asdict(rounds),
    }


def _largest_values(report: Report, largest: LargestBatch) -> dict[str, Any]:
    cell = _cell_values(largest.cell, report.hardware.devices)
    return {**cell, "is_capped": largest.is_capped}
