"""What a benchmark of input has found: tables to read, values for JSON, and a picture."""

import dataclasses
import platform
from typing import Any

import jax

from vit_jax import pictures
from vit_jax.experiments.benchmark.input import InputReport
from vit_jax.experiments.benchmark.loading import cores_needed
from vit_jax.experiments.benchmark.page import number, quartiles
from vit_jax.experiments.benchmark.stages import STAGES, Stages
from vit_jax.experiments.paper.page import Page
from vit_jax.image_size import format_size
from vit_jax.version import __version__


def pages(report: InputReport) -> list[Page]:
    """The table of stages, and that of the loader."""
    found = [] if report.stages is None else [_stages(report, report.stages)]
    return [*found, *([_loader(report)] if report.loaded else [])]


def title(report: InputReport) -> str:
    """What was read, in a line."""
    source, data = report.source, report.config.data
    augmented = [
        name
        for name, is_on in (
            ("affine", data.affine is not None),
            ("colour jitter", data.color_jitter is not None),
            ("RandAugment", data.randaugment is not None),
            ("random erasing", data.erase > 0),
        )
        if is_on
    ]
    how = ", ".join([f"crop {data.crop}", *augmented])
    return (
        f"{source.name}, {len(source):,} images, to {format_size(report.size)} ({how}), batches of "
        f"{report.batch_size}"
    )


def as_values(report: InputReport) -> dict[str, Any]:
    """All numbers, for JSON; times in seconds of an image."""
    stages, loaded = report.stages, report.loaded
    return {
        "benchmark": "input",
        "complete": report.is_complete,
        "versions": {
            "vit_jax": __version__,
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
        "cores": report.cores,
        "data": report.source.name,
        "images": len(report.source),
        "image_height": report.size[0],
        "image_width": report.size[1],
        "batch_size": report.batch_size,
        "round_seconds": report.seconds,
        "rounds": report.rounds,
        "stages": None
        if stages is None
        else {
            stage: {
                "cpu_seconds": stages.median(stage).cpu,
                "wall_seconds": stages.median(stage).wall,
                "rounds": {"cpu_seconds": stages.cpu[stage], "wall_seconds": stages.wall[stage]},
            }
            for stage in STAGES
        },
        "loader": [
            {
                "workers": each.workers,
                "images_per_second": each.rate._asdict(),
                "images_per_cpu_second": each.cpu_rate,
                "rounds": dataclasses.asdict(each),
            }
            for each in loaded
        ],
        "cores_a_device": _cores(report),
    }


def draw(report: InputReport, suffix: str) -> bytes:
    """Stages as bars, and the loader's rate by workers beside an equal share for each.

    Args:
      suffix: `.png` or `.svg`.
    """
    from matplotlib.figure import Figure

    panels = int(report.stages is not None) + bool(report.loaded)
    with pictures.style(9):
        figure = Figure(figsize=(5.4 * panels, 3.9), layout="constrained")
        figure.suptitle(title(report), wrap=True, fontsize=9)
        if report.stages is not None:
            _draw_stages(figure.add_subplot(1, panels, 1), report.stages)
        if report.loaded:
            _draw_loader(figure.add_subplot(1, panels, panels), report)
    return pictures.as_bytes(figure, suffix)


def _stages(report: InputReport, stages: Stages) -> Page:
    total = stages.total
    rows = [
        (stage, *_milliseconds(stages.median(stage).cpu, total.cpu), _ms(stages.median(stage).wall))
        for stage in STAGES
    ]
    rows.append(("all", *_milliseconds(total.cpu, total.cpu), _ms(total.wall)))
    return Page(
        source=title(report),
        title=f"time of an image in one thread: medians of {report.rounds} rounds of about "
        f"{report.seconds:g} s, {stages.images:,} images",
        heading=("stage", "CPU ms", "share", "ms"),
        rows=tuple(rows),
        notes=(
            f"{number(1 / total.cpu)} images a CPU second; a stage that takes more ms than CPU ms "
            "waits for a disk or a core",
        ),
    )


def _loader(report: InputReport) -> Page:
    base = next((each for each in report.loaded if each.workers == 1), None)
    rows = []
    for each in report.loaded:
        times = "" if base is None else f"{each.rate.median / base.rate.median:.2f}"
        rows.append(
            (
                str(each.workers) if each.workers else "0 (threads)",
                number(each.rate.median),
                quartiles(each.rate),
                number(each.cpu_rate),
                times,
            )
        )
    cores = "1 core" if report.cores == 1 else f"{report.cores} cores"
    return Page(
        source=f"vit_jax {__version__}, jax {jax.__version__}, Python {platform.python_version()}",
        title=f"the loader on {cores}, whole batches on the device",
        heading=("workers", "img/s", "quartiles", "img/CPU s", "times 1 worker"),
        rows=tuple(rows),
        notes=tuple(_notes(report)),
    )


def _notes(report: InputReport) -> list[str]:
    notes = []
    if report.stages is not None and report.cpu_rate is not None:
        added = 1 / report.cpu_rate / report.stages.total.cpu - 1
        notes.append(f"CPU time of an image, the fastest loader beside the stages: {added:+.1%}")
    fastest = max(each.rate.median for each in report.loaded)
    for name, cores in _cores(report).items():
        notes.append(
            f"a device that trains {number(report.rates[name])} img/s ({name}) needs "
            f"{number(cores)} cores; this machine gives it {number(fastest)} img/s"
        )
    if not report.rates:
        notes.append(
            "for the cores that a device needs, add --rate=IMG_PER_S, or --rate=FILE.json of "
            "`benchmark train --output=FILE.json`"
        )
    if not report.is_complete:
        notes.append("interrupted: not all was measured")
    return notes


def _cores(report: InputReport) -> dict[str, float]:
    """Cores that a device needs, by what says how fast it is."""
    if report.cpu_rate is None:
        return {}
    return {name: cores_needed(rate, report.cpu_rate) for name, rate in report.rates.items()}


def _milliseconds(value: float, total: float) -> tuple[str, str]:
    return _ms(value), f"{value / total:.1%}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3f}"


def _draw_stages(axes: Any, stages: Stages) -> None:
    cpu = [1000 * stages.median(stage).cpu for stage in STAGES]
    bars = axes.barh(range(len(STAGES)), cpu, color="C0")
    axes.bar_label(bars, [f"{value:.2f}" for value in cpu], padding=3, fontsize=8)
    axes.set_yticks(range(len(STAGES)), STAGES)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(title="stages in one thread", xlabel="ms of CPU time an image")


def _draw_loader(axes: Any, report: InputReport) -> None:
    loaded = sorted(report.loaded, key=lambda each: each.workers)
    rates = [each.rate for each in loaded]
    workers = [each.workers for each in loaded]
    axes.grid(True)
    axes.errorbar(
        workers,
        [rate.median for rate in rates],
        yerr=(
            [rate.median - rate.low for rate in rates],
            [rate.high - rate.median for rate in rates],
        ),
        fmt="-o",
        capsize=3,
        label="measured",
    )
    one = next((each.rate.median for each in loaded if each.workers == 1), None)
    if one is not None and max(workers) > 1:
        shares = [1, min(max(workers), report.cores)]
        axes.plot(
            shares, [one * share for share in shares], "--", color="gray", label="in proportion"
        )
    for name, rate in report.rates.items():
        axes.axhline(rate, color="C3", linewidth=1, label=f"a device ({name})")
    axes.set_xticks(workers, [str(each) if each else "0\n(threads)" for each in workers])
    axes.set_ylim(bottom=0)
    axes.set(title=f"loader on {report.cores} cores", xlabel="workers", ylabel="img/s")
    axes.legend(frameon=False, fontsize=8)
