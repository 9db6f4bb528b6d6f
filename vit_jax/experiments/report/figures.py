"""The figures of a report, as SVG, and its pictures, as data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vit_jax import pictures
from vit_jax.analysis.attention_maps import overlay
from vit_jax.evaluation.scores import Calibration
from vit_jax.experiments.report.record import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (6.0, 3.4)
# More classes than one can tell apart in a picture.
NAMED_AT_MOST = 30
# Letters of a name for which there is room beside an axis.
_NAME_AT_MOST = 24


def curves(title: str, named: Mapping[str, Curve]) -> str:
    """Lines over steps, one for each name."""
    figure, axes = _axes()
    for name, curve in named.items():
        marker = "o" if len(curve.steps) < 30 else None
        axes.plot(curve.steps, curve.values, label=name, marker=marker, markersize=3)
    axes.set(xlabel="step", title=title)
    if len(named) > 1:
        axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def calibration(found: Calibration) -> str:
    """Accuracy over confidence; the diagonal is a model that is as sure as it is right."""
    figure, axes = _axes((4.4, 3.8))
    bins = len(found.examples)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    edges = np.arange(bins) / bins
    axes.bar(edges, np.nan_to_num(found.accuracy), 1 / bins, align="edge", edgecolor="white")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="Calibration")
    return _svg(figure)


def confusion(counts: np.ndarray, names: Sequence[str]) -> str:
    """How often each class is taken for each.

    Args:
      counts: int [classes, classes]; a row is a right class, a column a prediction.
    """
    side = 2.5 + 0.35 * len(names) if len(names) <= NAMED_AT_MOST else 6.0
    figure, axes = _axes((side, side))
    axes.grid(False)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="right class", title="Confusion")
    if len(names) <= NAMED_AT_MOST:
        shown = [_short(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90)
        axes.set_yticks(range(len(names)), shown)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color, size=8)
    return _svg(figure)


def picture(pixels: np.ndarray, attention: np.ndarray | None = None) -> str:
    """An image as a data URI, darkened where attention is low.

    Args:
      pixels: uint8 [height, width, 3].
      attention: float [rows, columns], in [0, 1].
    """
    image = Image.fromarray(pixels) if attention is None else overlay(pixels, attention)
    file = io.BytesIO()
    image.thumbnail((256, 256))
    image.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _short(name: str) -> str:
    """A class's name as far as there is room beside an axis; tables show it whole."""
    return name if len(name) <= _NAME_AT_MOST else name[: _NAME_AT_MOST - 1] + "\u2026"


def _axes(size: tuple[float, float] = _SIZE) -> "tuple[Figure, Axes]":
    with pictures.style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = pictures.as_bytes(figure, ".svg").decode()
    return text[text.index("<svg") :]
