"""Scores of several models and evaluations as a picture. It needs the extra `plots`."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vit_jax import pictures
from vit_jax.evaluation.table import Row, as_number
from vit_jax.plain import plain

# If there are more classes, those with the lowest scores are drawn.
_CLASSES_AT_MOST = 60
# Letters of a name for which there is room beside an axis.
_NAME_AT_MOST = 40
# Inches: of the picture, of what is left and right of the bars, of a bar, and around a panel.
_WIDTH, _LEFT, _RIGHT, _BAR, _AROUND = 8.0, 3.2, 0.7, 0.22, 0.8
# Pixels beyond which no picture can be written.
_HIGHEST = 60_000


class Panel(NamedTuple):
    """Bars of one score.

    Attributes:
      labels, values: of each bar, from top to bottom.
    """

    title: str
    labels: list[str]
    values: list[float]


def as_picture(rows: Sequence[Row], suffix: str) -> bytes:
    """Bars: a panel for each score, and one for each score by class of each row.

    Args:
      suffix: `.png` or `.svg`.
    """
    from matplotlib.figure import Figure

    drawn = panels(rows)
    heights = [_AROUND + _BAR * len(panel.values) for panel in drawn]
    with pictures.style(9):
        height = sum(heights)
        figure = Figure(figsize=(_WIDTH, height))
        top = height
        for own, panel in zip(heights, drawn, strict=True):
            # By hand: matplotlib's own layouts take minutes for hundreds of panels.
            bottom, top = top - own + _AROUND / 2, top - own
            box = (_LEFT, bottom, _WIDTH - _LEFT - _RIGHT, own - _AROUND)
            sides = (_WIDTH, height, _WIDTH, height)
            axes = figure.add_axes(tuple(np.divide(box, sides)))
            places = range(len(panel.values))
            bars = axes.barh(places, [0.0 if math.isnan(x) else x for x in panel.values], 0.7)
            shown = ["none" if math.isnan(x) else as_number(x) for x in panel.values]
            axes.bar_label(bars, shown, padding=3)
            axes.set_yticks(places, [_short(label) for label in panel.labels])
            axes.set_ylim(len(panel.values) - 0.5, -0.5)  # From top to bottom.
            axes.set_title(panel.title, loc="left")
            if all(math.isnan(x) or 0 <= x <= 1 for x in panel.values):
                axes.set_xlim(0, 1.1)
    return pictures.as_bytes(figure, suffix, dpi=min(150.0, _HIGHEST / height))


def panels(rows: Sequence[Row]) -> list[Panel]:
    """What is drawn, in the order of the scores."""
    labels = _labels(rows)
    names = dict.fromkeys(name for row in rows for name in row.scores.values)
    found = []
    for name in (name for name in names if "/" not in name):
        having = [index for index, row in enumerate(rows) if name in row.scores.values]
        values = [rows[index].scores.values[name] for index in having]
        found.append(Panel(name, [labels[index] for index in having], values))
    for group in dict.fromkeys(name.partition("/")[0] for name in names if "/" in name):
        for label, row in zip(labels, rows, strict=True):
            own = {
                name.partition("/")[2]: value
                for name, value in row.scores.values.items()
                if name.startswith(f"{group}/")
            }
            if own:
                found.append(_of_classes(f"{group}, {label}", own))
    return found


def _labels(rows: Sequence[Row]) -> list[str]:
    """What tells the rows apart: the evaluation, and of several weights the ends of their names."""
    weights = list(dict.fromkeys(row.weights for row in rows))
    if len(weights) == 1:
        return [row.evaluation for row in rows]
    # As much of a commit of the Hub as one reads.
    names = [re.sub("@([0-9a-f]{7})[0-9a-f]{33}$", r"@\1", each) for each in weights]
    parts = [name.rstrip("/").split("/") for name in names]
    ends = names
    for count in range(max(map(len, parts)), 0, -1):
        shorter = ["/".join(each[-count:]) for each in parts]
        if len(set(shorter)) < len(weights):
            break
        ends = shorter
    shown = dict(zip(weights, ends, strict=True))
    return [f"{shown[row.weights]}: {row.evaluation}" for row in rows]


def _of_classes(title: str, values: dict[str, float]) -> Panel:
    names = list(values)
    if len(names) > _CLASSES_AT_MOST:
        lowest = sorted(names, key=lambda name: (math.isnan(values[name]), values[name]))
        names = lowest[:_CLASSES_AT_MOST]
        title = f"{title} (the {len(names)} lowest of {len(values):,})"
    return Panel(title, names, [values[name] for name in names])


def _short(label: str) -> str:
    """A name without its middle where there is no room for that; tables show it whole."""
    label, half = plain(label), _NAME_AT_MOST // 2
    return label if len(label) <= _NAME_AT_MOST else f"{label[: half - 1]}…{label[-half:]}"
