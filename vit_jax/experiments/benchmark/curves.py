"""Curves of speeds and of largest batches, from the values that a benchmark has written."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# As `page.as_values` gives it, or read from its file.
Values = Mapping[str, Any]


class Point(NamedTuple):
    """A point with the quartiles of its y.

    Attributes:
      batch_size: a device, of a speed.
    """

    x: float
    y: float
    low: float
    high: float
    batch_size: float


# By what varies besides x, such as a model's name.
Curves = dict[str, list[Point]]


def by_batch(values: Values) -> Curves:
    """Images a second a device by images a device, a curve for each model and image size."""
    found: Curves = {}
    for row in _fitting(values):
        point = _speed(row, row["batch_size_a_device"])
        found.setdefault(f"{_name(row)}, {_size(row)}", []).append(point)
    return found


def peaks(values: Values) -> Curves:
    """Most images a second a device over batch sizes, by the image's side, for each model.

    The side of an image that is no square is the root of its area.
    """
    best: dict[tuple[str, float], Point] = {}
    for row in _fitting(values):
        point = _speed(row, side(row))
        key = (_name(row), point.x)
        best[key] = max(best.get(key, point), point, key=lambda each: each.y)
    return _collected((name, point) for (name, _), point in best.items())


def largest(values: Values) -> Curves:
    """Largest batch a device by the image's side, for each model; what does not fit is left out."""
    return _collected(
        (_name(row), Point(side(row), size, size, size, size))
        for row in values["largest"]
        if (size := row["batch_size_a_device"]) > 0
    )


def side(row: Mapping[str, Any]) -> float:
    """Side in pixels of the square with an image's area."""
    return math.sqrt(row["image_height"] * row["image_width"])


def _fitting(values: Values) -> Sequence[Mapping[str, Any]]:
    return [row for row in values["results"] if row["fits"]]


def _speed(row: Mapping[str, Any], x: float) -> Point:
    devices = row["batch_size"] / row["batch_size_a_device"]
    spread = {key: value / devices for key, value in row["images_per_second"].items()}
    batch_size = row["batch_size_a_device"]
    return Point(x, spread["median"], spread["low"], spread["high"], batch_size)


def _collected(points: Any) -> Curves:
    found: Curves = {}
    for name, point in points:
        found.setdefault(name, []).append(point)
    return {name: sorted(each) for name, each in found.items()}


def _name(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["model"], row["settings"])))


def _size(row: Mapping[str, Any]) -> str:
    height, width = row["image_height"], row["image_width"]
    return f"{height}" if height == width else f"{height}x{width}"
