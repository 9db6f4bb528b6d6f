"""Speeds and largest batches, drawn as in Figure 12 of the paper, and by batch size."""

from typing import Any, NamedTuple

from vit_jax import pictures
from vit_jax.experiments.benchmark.curves import Curves, Values, by_batch, largest, peaks

# Inches of a panel.
_WIDTH, _HEIGHT = 5.6, 4.4
_MARKERS = "osD^vP*X"
_SIDE = "side of the image in pixels"


class _Panel(NamedTuple):
    title: str
    x_label: str
    y_label: str
    curves: Curves


def draw(values: Values, suffix: str, title: str) -> bytes:
    """Panels for speeds by batch size, peaks by image size, and largest batches by image size.

    Args:
      values: of which something fits.
      suffix: `.png` or `.svg`.
    """
    from matplotlib.figure import Figure

    panels = _panels(values)
    with pictures.style(9):
        size = _WIDTH * len(panels), _HEIGHT + 0.5
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title, wrap=True, fontsize=9)
        for number, panel in enumerate(panels):
            _draw(figure.add_subplot(1, len(panels), number + 1), panel)
    return pictures.as_bytes(figure, suffix)


def is_drawable(values: Values) -> bool:
    """Whether there is a point to draw."""
    return bool(_panels(values))


def _panels(values: Values) -> list[_Panel]:
    batches, sides, most = by_batch(values), peaks(values), largest(values)
    rate = "img/s a device"
    panels = []
    has_sides = _is_line(sides)
    if batches and (_is_line(batches) or not has_sides):
        panels.append(_Panel("speed", "images a device", rate, batches))
    if has_sides:
        panels.append(_Panel("peak over batch sizes", _SIDE, rate, sides))
    if most:
        panels.append(_Panel("largest batch that fits", _SIDE, "images a device", most))
    return panels


def _is_line(curves: Curves) -> bool:
    return any(len({point.x for point in points}) > 1 for points in curves.values())


def _draw(axes: Any, panel: _Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.grid(True)
    for number, (name, unsorted) in enumerate(panel.curves.items()):
        points = sorted(unsorted)
        axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            yerr=(
                [point.y - point.low for point in points],
                [point.high - point.y for point in points],
            ),
            fmt="-" + _MARKERS[number % len(_MARKERS)],
            color=f"C{number % 10}",
            markersize=5,
            linewidth=1,
            capsize=2,
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({p.x for points in panel.curves.values() for p in points}))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.7g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.legend(frameon=False, fontsize=7)
